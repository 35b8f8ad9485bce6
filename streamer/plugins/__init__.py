"""The avatar in other people's frameworks; each module needs the extra of its name. All stand on `streamer.Avatar`."""
