"""A WHEP viewer of GStreamer's `webrtcbin`; run by the Python that has its bindings, not by pytest's.

Usage: gstreamer_viewer.py WHEP_URL SECONDS CODEC; prints `{"video": frames, "audio": packets, "last_s": …}`, the last
being when the last frame came, seconds after the first.
"""

import json
import sys
import time
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

DEPAYLOADERS = {"VP8": "rtpvp8depay", "H264": "rtph264depay", "OPUS": "rtpopusdepay"}
CAPS = "application/x-rtp,media={},encoding-name={},payload={},clock-rate={}"
MORE_CAPS = {"H264": ",packetization-mode=(string)1,profile-level-id=(string)42e01f"}  # what is sent; 0 is the default


class Viewer:
    """Counts what arrives."""

    def __init__(self, url: str, codec: str):
        self.url = url
        self.counts = {"video": 0, "audio": 0}
        self.first_s = self.last_s = None
        self.pipeline = Gst.Pipeline.new("viewer")
        self.webrtc = Gst.ElementFactory.make("webrtcbin")
        self.webrtc.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(self.webrtc)
        self.webrtc.connect("pad-added", self.on_pad)
        self.webrtc.connect("notify::ice-gathering-state", self.on_gathering)
        receive = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        video = CAPS.format("video", codec, 96, 90000) + MORE_CAPS.get(codec, "")
        for caps in (CAPS.format("audio", "OPUS", 97, 48000), video):
            self.webrtc.emit("add-transceiver", receive, Gst.Caps.from_string(caps))
        self.pipeline.set_state(Gst.State.PLAYING)
        promise = Gst.Promise.new_with_change_func(self.on_offer)
        self.webrtc.emit("create-offer", None, promise)

    def on_offer(self, promise):
        promise.wait()
        reply = promise.get_reply()  # the offer is a part of it
        self.webrtc.emit("set-local-description", reply.get_value("offer"), Gst.Promise.new())

    def on_gathering(self, webrtc, _):
        if webrtc.get_property("ice-gathering-state") != GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            return
        description = webrtc.get_property("local-description")
        offer = description.sdp.as_text().encode()
        request = urllib.request.Request(self.url, offer, {"Content-Type": "application/sdp"})
        with urllib.request.urlopen(request, timeout=20) as response:
            text = response.read()
        _, sdp = GstSdp.SDPMessage.new()
        GstSdp.sdp_message_parse_buffer(text, sdp)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        webrtc.emit("set-remote-description", answer, Gst.Promise.new())

    def on_pad(self, _, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        caps = pad.get_current_caps().get_structure(0)
        kind = caps.get_string("media")
        depayload = Gst.ElementFactory.make(DEPAYLOADERS[caps.get_string("encoding-name")])
        sink = Gst.ElementFactory.make("fakesink")
        sink.set_property("signal-handoffs", True)
        sink.set_property("sync", False)
        sink.connect("handoff", self.on_buffer, kind)
        for element in (depayload, sink):
            self.pipeline.add(element)
            element.sync_state_with_parent()
        depayload.link(sink)
        pad.link(depayload.get_static_pad("sink"))

    def on_buffer(self, sink, buffer, pad, kind):
        self.counts[kind] += 1
        if kind == "video":
            self.last_s = time.monotonic()
            self.first_s = self.first_s or self.last_s


def main(url: str, seconds: float, codec: str) -> None:
    Gst.init(None)
    viewer = Viewer(url, codec)
    loop = GLib.MainLoop()
    GLib.timeout_add(int(1000 * seconds), loop.quit)
    loop.run()
    last_s = None if viewer.first_s is None else viewer.last_s - viewer.first_s
    print(json.dumps({**viewer.counts, "last_s": last_s}), flush=True)
    viewer.pipeline.set_state(Gst.State.NULL)


main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
