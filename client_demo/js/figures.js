// What this browser really receives and shows: frames, gaps, bitrate, and where sound and picture stand.

const FPS_WINDOW_MS = 2000;
const FREEZE_MS = 500;
const SETTLED_FRAMES = 2; // the first gap is the start, not a freeze

/** Watches one video element and one RTCPeerConnection from `start` to `stop`. */
export class Figures {
  #video;
  #peer = null;
  #shown = []; // {atMs, count} of frames in the window
  #timer = null;
  #callback = 0;
  #previous = null;
  #offsets = [];
  #statistics = {};

  constructor(video) {
    this.#video = video;
    this.#reset();
  }

  /** From the press of Start: the time to the first frame counts from here. */
  start() {
    this.stop();
    this.#reset();
    this.startedAtMs = performance.now();
    if ("requestVideoFrameCallback" in this.#video) this.#await();
    this.#timer = setInterval(() => this.#poll(), 1000);
  }

  /** Reads the statistics of this connection from now on. */
  attach(peer) {
    this.#peer = peer;
  }

  stop() {
    clearInterval(this.#timer);
    if (this.#callback) this.#video.cancelVideoFrameCallback(this.#callback);
    this.#callback = 0;
    this.#timer = null;
    this.#peer = null;
    this.#shown = [];
  }

  /** The figures as an object; what is not known yet is null. */
  snapshot() {
    const { kbps, received, dropped, lost, rttMs, bufferMs, offsetMs } = this.#statistics;
    const { freezeCount, codec, concealed } = this.#statistics;
    return {
      fps: this.#fps(),
      framesReceived: received ?? 0,
      framesDropped: dropped ?? 0,
      framesShown: this.framesShown,
      freezes: this.freezes,
      freezesSettled: this.freezesSettled,
      longestGapMs: Math.round(this.longestGapMs),
      browserFreezes: freezeCount ?? 0,
      firstFrameMs: this.firstFrameMs,
      bitrateKbps: kbps ?? null,
      packetsLost: lost ?? 0,
      rttMs: rttMs ?? null,
      bufferMs: bufferMs ?? null,
      browserAvOffsetMs: offsetMs ?? null,
      concealedMs: concealed ?? null,
      codec: codec ?? null,
    };
  }

  #reset() {
    this.framesShown = 0;
    this.freezes = 0;
    this.freezesSettled = 0; // those after the first five seconds
    this.longestGapMs = 0;
    this.firstFrameMs = null;
    this.startedAtMs = performance.now();
    this.#previous = null;
    this.#offsets = [];
    this.#statistics = {};
  }

  #await() {
    this.#callback = this.#video.requestVideoFrameCallback((now, frame) => {
      const last = this.#shown.at(-1);
      if (this.firstFrameMs === null) this.firstFrameMs = Math.round(now - this.startedAtMs);
      this.framesShown++;
      // A page in the background is given no frames; that is no freeze.
      if (last && this.framesShown > SETTLED_FRAMES && !document.hidden) this.#judge(now - last.atMs, now);
      this.#shown.push({ atMs: now, count: frame.presentedFrames });
      while (this.#shown.length > 2 && now - this.#shown[0].atMs > FPS_WINDOW_MS) this.#shown.shift();
      this.#await();
    });
  }

  #judge(gapMs, now) {
    this.longestGapMs = Math.max(this.longestGapMs, gapMs);
    if (gapMs <= FREEZE_MS) return;
    this.freezes++;
    if (now - this.startedAtMs > 5000) this.freezesSettled++;
  }

  #fps() {
    const first = this.#shown[0];
    const last = this.#shown.at(-1);
    if (!last || first === last || performance.now() - last.atMs > 1500) return 0;
    return Math.round(((last.count - first.count) / (last.atMs - first.atMs)) * 10_000) / 10;
  }

  async #poll() {
    const peer = this.#peer;
    if (!peer || peer.connectionState === "closed") return;
    const report = await peer.getStats();
    if (peer !== this.#peer) return;
    const entries = [...report.values()];
    const inbound = (kind) => entries.find((entry) => entry.type === "inbound-rtp" && entry.kind === kind);
    this.#measure(inbound("video"), inbound("audio"), entries, report);
  }

  #measure(video, audio, entries, report) {
    const pair = entries.find((entry) => entry.type === "candidate-pair" && entry.nominated && entry.bytesReceived > 0);
    const now = {
      atMs: performance.now(),
      bytes: (video?.bytesReceived ?? 0) + (audio?.bytesReceived ?? 0),
      delayS: video?.jitterBufferDelay ?? 0,
      emitted: video?.jitterBufferEmittedCount ?? 0,
    };
    const before = this.#previous;
    this.#previous = now;
    this.#statistics = {
      received: video?.framesReceived,
      dropped: video?.framesDropped,
      freezeCount: video?.freezeCount,
      lost: (video?.packetsLost ?? 0) + (audio?.packetsLost ?? 0),
      rttMs: pair?.currentRoundTripTime === undefined ? null : Math.round(pair.currentRoundTripTime * 1000),
      kbps: before ? Math.round(((now.bytes - before.bytes) * 8) / (now.atMs - before.atMs)) : null,
      bufferMs: before && now.emitted > before.emitted
        ? Math.round(((now.delayS - before.delayS) / (now.emitted - before.emitted)) * 1000)
        : this.#statistics.bufferMs,
      offsetMs: this.#offset(video, audio),
      concealed: audio?.concealedSamples === undefined ? null : Math.round(audio.concealedSamples / 48),
      codec: report.get(video?.codecId)?.mimeType?.replace("video/", "") ?? null,
    };
  }

  /**
   * Milliseconds the picture is later than the sound: the difference of the sender's times of what plays now.
   * One reading wanders by a frame, so it is the median of the last five.
   */
  #offset(video, audio) {
    const pictureAt = video?.estimatedPlayoutTimestamp;
    const soundAt = audio?.estimatedPlayoutTimestamp;
    if (!pictureAt || !soundAt) return this.#statistics.offsetMs;
    this.#offsets = [...this.#offsets, soundAt - pictureAt].slice(-5);
    if (this.#offsets.length < 3) return null; // the first ones are of a connection that has not settled
    const sorted = [...this.#offsets].sort((a, b) => a - b);
    return Math.round(sorted[sorted.length >> 1]);
  }
}
