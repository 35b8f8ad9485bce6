// Asking for the caller's microphone, or camera, and a meter of the microphone's level.

import { AvatarError } from "./api.js";

const REFUSED = {
  NotAllowedError: (device) => `The ${device} is not allowed for this page.`,
  SecurityError: (device) => `The ${device} is not allowed for this page.`,
  NotFoundError: (device) => `No ${device} was found.`,
  NotReadableError: (device) => `The ${device} is in use by another program.`,
};

/**
 * The microphone's track. Throws an AvatarError whose message says why there is none.
 *
 * @param {{isRaw?: boolean}} options  raw: as it is, without echo cancelling, noise suppression and gain (for tests)
 */
export async function openMicrophone({ isRaw = false } = {}) {
  const audio = {
    channelCount: 1,
    echoCancellation: !isRaw,
    noiseSuppression: !isRaw,
    autoGainControl: !isRaw,
  };
  const stream = await openDevice("microphone", { audio });
  return stream.getAudioTracks()[0];
}

/** The stream of a "microphone" or a "camera". Throws an AvatarError whose message says why there is none. */
export async function openDevice(device, constraints) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new AvatarError(`Browsers give the ${device} only to pages on https:// or localhost.`, { code: "insecure" });
  }
  try {
    return await navigator.mediaDevices.getUserMedia(constraints);
  } catch (error) {
    const message = REFUSED[error.name]?.(device) ?? `The ${device} could not be opened: ${error.message}.`;
    throw new AvatarError(message, { code: error.name });
  }
}

/** Calls `show(level)` about 15 times a second with the loudness in 0 … 1 over a range of 60 dB, until stopped. */
export function startMeter(track, show) {
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, { fftSize: 1024 });
  context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    let power = 1e-12;
    for (const sample of samples) power += (sample * sample) / samples.length;
    const decibels = 10 * Math.log10(power);
    show(track.enabled ? Math.min(1, Math.max(0, (decibels + 60) / 50)) : 0);
  }, 66);
  return () => {
    clearInterval(timer);
    show(0);
    context.close();
  };
}
