// Measures, inside the page, when the picture flashes, when the sound beeps, and when the microphone heard a beep:
// all in milliseconds of performance.now(). Evaluate this file in a page (av_probe.py does), then:
//
//   await avProbe.start({ video, microphone })   // microphone: a MediaStreamTrack or null
//   avProbe.drain()                              // what happened since the last drain; bounded, oldest lost first
//   avProbe.stop()
//
// A flash is a frame whose middle is brighter than FLASH_LEVEL after one that was not; its time is `presentationTime`
// of requestVideoFrameCallback, when the frame was handed to the compositor. A beep is the first sample louder than
// BEEP_LEVEL after QUIET_S of quiet, seen by an AudioWorklet where the sound is handed to the output. The worklet's clock
// is mapped to the page's by the smallest difference within the same second, because a late worklet can only make it
// larger; no longer than a second, because that clock stands still whenever a busy machine lets the output run dry. What
// a screen and a loudspeaker add afterwards is in neither. Both are exact to about 10 ms; frames come every 40 ms.

(() => {
  const FLASH_LEVEL = 190; // of 255
  const BEEP_LEVEL = 0.02; // amplitude, 1 is full scale
  const QUIET_S = 0.12;
  const WINDOW_S = 1;
  const KEEP = 5000;
  const SIDE = 16;

  const WORKLET = `
    registerProcessor("onsets", class extends AudioWorkletProcessor {
      constructor() {
        super();
        this.lastLoud = currentTime; // a beep that is already sounding has no onset to report
        this.isLoud = false;
        this.best = Infinity;
        this.windowStart = 0;
        this.energy = 0;
      }
      process([input]) {
        const at = currentTime;
        // Date.now() is the only other clock here. Rendered in bursts: the last block of a burst is the honest one.
        this.best = Math.min(this.best, Date.now() - at * 1000);
        const samples = input[0] ?? [];
        for (let i = 0; i < samples.length; i++) {
          this.energy += samples[i] * samples[i];
          if (Math.abs(samples[i]) < ${BEEP_LEVEL}) continue;
          const t = at + i / sampleRate;
          if (t - this.lastLoud > ${QUIET_S}) this.port.postMessage({ on: t });
          this.lastLoud = t;
          this.isLoud = true;
        }
        if (this.isLoud && at - this.lastLoud > ${QUIET_S}) {
          this.isLoud = false;
          this.port.postMessage({ off: this.lastLoud });
        }
        if (at - this.windowStart >= ${WINDOW_S}) {
          this.port.postMessage({ clock: this.best, energy: this.energy });
          this.windowStart = at;
          this.best = Infinity;
          this.energy = 0;
        }
        return true;
      }
    });`;

  let context = null;
  let video = null;
  let callback = 0;
  let nodes = [];
  let kept = empty();
  let wasBright = null;
  let lastFrameAt = null;

  function empty() {
    const events = { beeps: [], beepEnds: [], flashes: [], flashEnds: [], micBeeps: [] };
    return { ...events, clocks: [], longestGapMs: 0, frames: 0, energy: 0 };
  }

  function keep(name, value) {
    kept[name].push(value);
    if (kept[name].length > KEEP) kept[name].shift();
  }

  function listen(track, onNames) {
    const source = context.createMediaStreamSource(new MediaStream([track]));
    const node = new AudioWorkletNode(context, "onsets", { channelCount: 1, channelCountMode: "explicit" });
    const silent = new GainNode(context, { gain: 0 });
    source.connect(node).connect(silent).connect(context.destination);
    let waiting = []; // for the clock of their own second
    node.port.onmessage = ({ data }) => {
      if (data.clock === undefined) {
        const event = "on" in data ? { name: onNames.on, t: data.on } : { name: onNames.off, t: data.off };
        if (event.name) waiting.push(event);
        return;
      }
      const offset = data.clock - performance.timeOrigin - clockError();
      waiting.forEach(({ name, t }) => keep(name, t * 1000 + offset));
      waiting = [];
      kept.clocks.push(offset);
      if (onNames.on === "beeps") kept.energy += data.energy;
    };
    nodes.push(source, node, silent);
  }

  // Date.now() is whole milliseconds and may have been set since timeOrigin was taken.
  function clockError() {
    let smallest = Infinity;
    const end = performance.now() + 2;
    while (performance.now() < end) {
      smallest = Math.min(smallest, Date.now() - performance.timeOrigin - performance.now());
    }
    return smallest + 0.5;
  }

  function watchPicture() {
    const canvas = new OffscreenCanvas(SIDE, SIDE);
    const pixels = canvas.getContext("2d", { willReadFrequently: true });
    const look = (_, frame) => {
      const { videoWidth: width, videoHeight: height } = video;
      pixels.drawImage(video, width / 4, height / 4, width / 2, height / 2, 0, 0, SIDE, SIDE);
      const { data } = pixels.getImageData(0, 0, SIDE, SIDE);
      let sum = 0;
      for (let i = 0; i < data.length; i += 4) sum += data[i] + data[i + 1] + data[i + 2];
      const level = sum / (3 * SIDE * SIDE);
      const at = frame.presentationTime;
      const isBright = level > FLASH_LEVEL;
      if (wasBright === false && isBright) keep("flashes", at);
      if (wasBright && !isBright) keep("flashEnds", at);
      wasBright = isBright;
      if (lastFrameAt !== null) kept.longestGapMs = Math.max(kept.longestGapMs, at - lastFrameAt);
      lastFrameAt = at;
      kept.frames++;
      callback = video.requestVideoFrameCallback(look);
    };
    callback = video.requestVideoFrameCallback(look);
  }

  async function start({ video: element, microphone = null }) {
    stop();
    kept = empty();
    wasBright = lastFrameAt = null;
    video = element;
    context = new AudioContext({ latencyHint: "interactive" });
    const url = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
    await context.audioWorklet.addModule(url);
    await context.resume();
    const sound = video.srcObject.getAudioTracks()[0];
    if (sound) listen(sound, { on: "beeps", off: "beepEnds" });
    if (microphone) listen(microphone, { on: "micBeeps", off: null });
    watchPicture();
    return { sampleRate: context.sampleRate, outputLatencyMs: context.outputLatency * 1000, hasSound: Boolean(sound) };
  }

  function drain() {
    const found = kept;
    kept = empty();
    // How far the worklet's clock fell behind: the output ran dry for so long, which is no fault of the server's.
    const { clocks } = found;
    const outputGapMs = clocks.length > 1 ? Math.max(...clocks) - Math.min(...clocks) : 0;
    return { ...found, outputGapMs, nowMs: performance.now() };
  }

  function stop() {
    if (video && callback) video.cancelVideoFrameCallback(callback);
    nodes.forEach((node) => node.disconnect());
    nodes = [];
    context?.close();
    context = video = null;
    callback = 0;
  }

  window.avProbe = { start, drain, stop };
})();
