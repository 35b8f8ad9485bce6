"""Every change of aiortc and aioice that the server needs, for aiortc 1.16.

Nothing is changed for other users of aiortc in the process: the changes are subclasses and replaced methods of the
server's own objects, which `PatchedConnection` makes. What each is for:

1. `PacedSender`: sender reports pair RTP time with media time (aiortc: with the time of sending, which turns a
   constantly late picture into a permanent lip offset).
2. `PacedSender`: the packets of a frame are spread over time (aiortc: bursts of up to 38).
3. `PacedSender`: packets sent again get a quarter of the bitrate (aiortc: any amount).
4. `PacedSender`: PLI asks the broadcast for a keyframe, REMB and reported loss steer its bitrate (aiortc: both end
   in an encoder that is not used).
5. `SteadyReceiver`: incoming sound does not stall on holes (aiortc: 30 % lost at 5 % packet loss).
6. `SteadyReceiver`: what nobody reads is bounded (aiortc: leaks).
7. `harden_ice`: consent tolerates round trips over 500 ms; gathering ends after 2 s when a STUN server does not
   answer (aioice: 5 s); an empty datagram is ignored (aiortc: ends the connection); waiting datagrams are bounded.
8. `watch_dtls`, `harden_sctp`: every authenticated packet is noticed, for the watchdog; sending on a channel whose
   transport has gone leaves no exception behind in a task.
9. `harden_sctp`: every fragment of a message is looked at once, and what waits for the rest of its message is bounded
   (aiortc: looks at all of them with each one, without a bound: 0.6 MB/s of a message that never ends stopped the
   server); a packet that breaks aiortc's assertions is left out.
10. `BroadCertificate`, `watch_dtls`: peers with RSA certificates find a common cipher, and what keeps a handshake from
   succeeding is told (aiortc: ECDSA only, and silence).
11. `PatchedConnection.close`: returns when the connecting tasks have ended too (aiortc: they run on).
12. `IceRestart`: a peer whose network has changed connects anew and keeps its DTLS (aiortc: cannot).
"""
