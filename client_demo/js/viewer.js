// The viewer's page: plays somebody's session over WHEP. ?session=ID names it; ?autostart is for tests and walls.

import { AvatarError, request } from "./api.js";
import { Connection } from "./connection.js";
import { Figures } from "./figures.js";

const $ = (id) => document.getElementById(id);
const options = new URLSearchParams(location.search);
const root = new URL("..", import.meta.url);
const video = $("avatar");
const figures = new Figures(video);
let connection = null;
let state = "idle";

window.avatarStats = () => ({
  state,
  sessionId: $("session").value.trim() || null,
  connectionState: connection?.peer.connectionState ?? "closed",
  ...figures.snapshot(),
});

function enter(next, words, error = null) {
  state = next;
  $("screen").dataset.state = next;
  $("status").textContent = words;
  $("stop").disabled = next !== "live" && next !== "starting";
  $("error").hidden = !error;
  $("error-text").textContent = error?.message ?? "";
}

async function watch() {
  const id = $("session").value.trim();
  if (!id) {
    enter("idle", "Ready", new AvatarError("Which session? Paste its number, or use the link you were given."));
    return $("session").focus();
  }
  leave();
  const mine = (connection = new Connection());
  enter("starting", "Connecting");
  video.srcObject = mine.stream;
  video.play().catch(() => {
    video.muted = true;
    return video.play();
  });
  figures.start();
  figures.attach(mine.peer);
  mine.addEventListener("state", ({ detail }) => {
    if (detail === "failed" && mine === connection) end(new AvatarError("The connection was lost. Press Watch again."));
  });
  try {
    await mine.open(new URL(`v1/sessions/${encodeURIComponent(id)}/whep`, root).href, {
      isReceiveOnly: true,
      hasChannel: false,
    });
    enter("live", "Watching");
    checkWhileLive(mine, id);
  } catch (error) {
    if (mine === connection) end(error);
  }
}

/** There is no message to a viewer: that the session has ended is asked for when the picture stands still. */
async function checkWhileLive(mine, id) {
  let shown = -1;
  const timer = setInterval(async () => {
    if (mine !== connection) return clearInterval(timer);
    const isStill = figures.framesShown === shown;
    shown = figures.framesShown;
    if (!isStill || document.hidden) return;
    try {
      await request(new URL(`v1/sessions/${encodeURIComponent(id)}`, root).href);
    } catch (error) {
      if (mine === connection) end(error.status === 404 ? new AvatarError("The session has ended.") : error);
    }
  }, 3000);
}

function leave({ isLeaving = false } = {}) {
  connection?.close({ isLeaving });
  connection = null;
  figures.stop();
  video.srcObject = null;
  delete $("screen").dataset.hasPicture;
}

function end(error = null) {
  leave();
  enter(error ? "lost" : "idle", error ? "Not connected" : "Ready", error);
}

video.addEventListener("resize", () => {
  if (!video.videoWidth) return;
  $("screen").style.setProperty("--frame", `${video.videoWidth} / ${video.videoHeight}`);
  $("screen").dataset.hasPicture = "";
});
video.addEventListener("volumechange", () => {
  $("mute").setAttribute("aria-pressed", String(video.muted));
  $("mute").querySelector("span").textContent = video.muted ? "Unmute" : "Mute";
});
$("start").addEventListener("click", watch);
$("stop").addEventListener("click", () => end());
$("mute").addEventListener("click", () => (video.muted = !video.muted));
$("fullscreen").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else if ($("screen").requestFullscreen) $("screen").requestFullscreen();
  else video.webkitEnterFullscreen?.();
});
$("session-form").addEventListener("submit", (event) => {
  event.preventDefault();
  watch();
});
window.addEventListener("pagehide", () => leave({ isLeaving: true }));

$("session").value = options.get("session") ?? "";
$("session-form").hidden = Boolean($("session").value);
if (options.has("autostart")) watch();
