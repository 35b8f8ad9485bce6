// The panel of live figures, and the one object that holds them: what this browser measures and what the server says.

const RUNGS = ["Full", "Half rate", "Softer", "Softer, half rate", "Held"];

const ROWS = [
  ["fps", "Frames/s", (s) => [s.fps?.toFixed(1)]],
  ["latency", "Latency", (s) => [s.latencyMs, "ms"]],
  ["offset", "Lip sync", (s) => [signed(s.avOffsetMs), "ms"]],
  ["bitrate", "Bitrate", (s) => [s.bitrateKbps, "kb/s"]],
  ["lost", "Lost", (s) => [s.packetsLost]],
  ["rung", "Quality", (s) => [s.rung === null ? null : (RUNGS[s.rung] ?? s.rungName)]],
];

const EXPLAINED = {
  latency: "From your voice to the picture in this window, added up from what the server and this browser measure",
  offset: "How much later the picture is than the sound; below 60 ms nobody sees it",
  rung: "What the server leaves out when its processor is short of time",
};

/** Everything that is known, as one flat object (`window.avatarStats()`). Unknown figures are null. */
export function collect(avatar, figures) {
  const shown = figures.snapshot();
  const server = avatar.metrics;
  const isLive = avatar.state === "live";
  const oneWayMs = (shown.rttMs ?? 0) / 2;
  return {
    state: avatar.state, // of the page: idle, starting, live, lost
    sessionState: avatar.session?.state ?? null, // of the server: idle, speaking, interrupted
    speaking: avatar.isSpeaking,
    sessionId: avatar.session?.id ?? null,
    avatar: avatar.session?.avatar ?? null,
    connectionState: avatar.connection?.peer.connectionState ?? "closed",
    ...shown,
    fps: isLive ? shown.fps : 0,
    latencyMs: server?.latency_ms == null ? null : Math.round(server.latency_ms + oneWayMs + (shown.bufferMs ?? 0)),
    avOffsetMs: shown.browserAvOffsetMs ?? rounded(server?.av_offset_ms),
    serverAvOffsetMs: rounded(server?.av_offset_ms),
    serverLatencyMs: rounded(server?.latency_ms),
    serverFps: server?.fps ?? null,
    rung: server?.rung ?? null,
    rungName: server?.rung_name ?? null,
    lateChunks: server?.late_chunks ?? null,
    heldFrames: server?.held_frames ?? null,
    serverDroppedFrames: server?.dropped_frames ?? null,
    queueMs: rounded(server?.queue_ms),
    stages: server?.stages ?? null,
  };
}

/** Makes the rows of the panel; returns the function that fills them from a `collect` object, or empties them. */
export function buildPanel(list) {
  const cells = ROWS.map(([key, label, read]) => {
    const box = document.createElement("div");
    const term = document.createElement("dt");
    const value = document.createElement("dd");
    term.textContent = label;
    if (EXPLAINED[key]) box.title = EXPLAINED[key];
    value.dataset.figure = key;
    value.classList.toggle("words", key === "rung");
    box.append(term, value);
    list.append(box);
    return { value, read };
  });
  return (figures) => {
    for (const { value, read } of cells) {
      const [text, unit] = figures?.state === "live" ? read(figures) : [];
      const isEmpty = text === null || text === undefined;
      value.classList.toggle("is-empty", isEmpty);
      value.textContent = isEmpty ? "–" : text;
      if (isEmpty || !unit) continue;
      const small = document.createElement("small");
      small.textContent = unit;
      value.append(small);
    }
  };
}

function rounded(number) {
  return number == null ? null : Math.round(number);
}

function signed(number) {
  if (number == null) return null;
  return number > 0 ? `+${number}` : number < 0 ? `−${-number}` : "0";
}
