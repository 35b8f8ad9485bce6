// The page: puts the avatar, the microphone, the figures and the controls together.
//
// Options in the address: ?avatar=NAME, ?mic=off (do not ask for it), ?mic=raw (without the browser's processing),
// ?buffer=MS (least jitter buffer).

import { Avatar, AvatarError } from "./avatar.js";
import { buildChips, buildGallery, capital } from "./choices.js";
import { Figures } from "./figures.js";
import { openMicrophone, startMeter } from "./microphone.js";
import { isPicture, OwnPicture } from "./own_picture.js";
import { buildPanel, collect } from "./panel.js";

const EMOTIONS = ["neutral", "happy", "sad", "surprised", "angry", "thoughtful"];
const IDLE_HINT = "Press Start, then speak, type, or play a file.";
const LIVE_HINT = matchMedia("(pointer: coarse)").matches ? "" : "Enter says it; Shift and Enter make a new line.";

const $ = (id) => document.getElementById(id);
const options = new URLSearchParams(location.search);
const screen = $("screen");
const video = $("avatar");
const avatar = new Avatar({ video });
const figures = new Figures(video);
const own = new OwnPicture({ avatar, dialog: $("own") });
const fillPanel = buildPanel($("stats"));

let presenters = [];
let presenter = null;
let awaited = null; // the presenter that was asked for while starting or live
let direction = { emotion: "neutral", gestures: 1 };
let microphone = null; // the track while there is one
let wantsMicrophone = options.get("mic") !== "off";
let stopMeter = null;
let waiting = new Map(); // utterance -> what the person would call it

window.avatarStats = () => collect(avatar, figures);
window.avatar = avatar;

// ---------- words in the page ----------

let statusHeldUntil = 0; // a word about what just happened outlasts the state that follows it at once

function showStatus(text, holdMs = 0) {
  statusHeldUntil = performance.now() + holdMs;
  if (holdMs) setTimeout(paintPresence, holdMs + 10);
  if ($("status").textContent !== text) $("status").textContent = text;
}

function showError(error) {
  if (error?.code === "aborted") return;
  console.info(`shown on the page: ${error.message}`);
  $("error-text").textContent = error.message;
  $("error").hidden = false;
}

let noteTimer = 0;

function showNote(text, forMs = 0) {
  clearTimeout(noteTimer);
  if (forMs) noteTimer = setTimeout(() => ($("note").hidden = true), forMs);
  $("note-text").textContent = text;
  $("note").hidden = false;
}

function clearWords() {
  $("error").hidden = true;
  $("note").hidden = true;
}

/** Runs what a control does; what goes wrong is told on the page. */
async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    showError(error instanceof AvatarError ? error : new AvatarError(`Something went wrong: ${error.message}`));
  }
}

// ---------- start and stop ----------

async function start() {
  clearWords();
  const microphoneOrNone = wantsMicrophone ? takeMicrophone() : Promise.resolve(null);
  try {
    await avatar.start({
      avatar: presenter?.name,
      bargeIn: $("barge-in").checked,
      microphone: microphoneOrNone,
      bufferMs: options.has("buffer") ? Number(options.get("buffer")) : undefined,
      isReceiveOnly: wantsMicrophone, // only if it was asked for and refused; else it may still come
    });
    if (awaited) whenOpen(() => avatar.setAvatar(awaited));
    if (direction.emotion !== "neutral" || direction.gestures !== 1) whenOpen(() => avatar.direct(direction));
  } catch (error) {
    await microphoneOrNone; // the server may say no before the person has said yes
    releaseMicrophone();
    if (error.code === "unknown_avatar" && own.presenter?.name === presenter.name) own.forget();
    if (error.code === "aborted") return;
    showError(error);
    showStatus("Not connected");
    $("start").focus({ preventScroll: true });
  }
}

/** The track, or null with the reason on the page: the presenter works without. */
async function takeMicrophone() {
  try {
    microphone = await openMicrophone({ isRaw: options.get("mic") === "raw" });
    microphone.addEventListener("ended", () => {
      releaseMicrophone();
      showNote("The microphone was unplugged or taken back. You can still type, or play a file.");
    });
    stopMeter = startMeter(microphone, (level) => $("level").style.setProperty("--level", level.toFixed(2)));
  } catch (error) {
    releaseMicrophone();
    showNote(`${error.message} It goes on without: type a text, or play a file.`);
  }
  paintMicrophone();
  return microphone;
}

function releaseMicrophone() {
  stopMeter?.();
  stopMeter = null;
  microphone?.stop();
  microphone = null;
  paintMicrophone();
}

async function stop() {
  releaseMicrophone();
  await avatar.stop();
}

function whenOpen(action) {
  const { channel } = avatar.connection ?? {};
  if (channel?.readyState === "open") action();
  else channel?.addEventListener("open", action, { once: true });
}

avatar.addEventListener("statechange", ({ detail: state }) => {
  screen.dataset.state = state;
  const isLive = state === "live";
  for (const id of ["interrupt", "say", "file"]) $(id).disabled = !isLive;
  $("stop").disabled = state !== "live" && state !== "starting";
  $("copy-link").hidden = !isLive;
  $("say-hint").textContent = isLive ? LIVE_HINT : IDLE_HINT;
  $("gallery").toggleAttribute("inert", state === "starting");
  if (state === "starting") {
    figures.start();
    $("stop").focus({ preventScroll: true });
  }
  if (isLive) figures.attach(avatar.connection.peer);
  if (state === "idle" || state === "lost") {
    figures.stop();
    waiting = new Map();
    awaited = null;
    delete screen.dataset.hasPicture;
    delete screen.dataset.speaking;
    $("file-text").innerHTML = FILE_TEXT;
    if (document.activeElement === $("stop") || document.activeElement === document.body) {
      $("start").focus({ preventScroll: true });
    }
  }
  showStatus({ idle: "Ready", starting: "Connecting", live: "Listening", lost: "Not connected" }[state]);
  if (isLive) paintPresence();
});

avatar.addEventListener("lost", ({ detail: error }) => {
  releaseMicrophone();
  showError(new AvatarError(`${error.message} Press Start to begin again.`, error));
});

video.addEventListener("resize", () => {
  if (!video.videoWidth) return;
  screen.style.setProperty("--frame", `${video.videoWidth} / ${video.videoHeight}`);
  screen.dataset.hasPicture = "";
});

// ---------- what the server says ----------

function paintPresence() {
  screen.toggleAttribute("data-speaking", avatar.isSpeaking);
  if (avatar.state !== "live") return;
  if (avatar.isSpeaking) showStatus("Speaking");
  else if (performance.now() >= statusHeldUntil) showStatus("Listening");
}

avatar.addEventListener("state", paintPresence);
avatar.addEventListener("speaking.started", ({ detail }) => {
  const name = waiting.get(detail.utterance);
  if (name) $("file-text").textContent = `Playing ${name}`;
});

avatar.addEventListener("speaking.stopped", ({ detail }) => {
  if (waiting.delete(detail.utterance)) $("file-text").innerHTML = FILE_TEXT;
  if (detail.reason === "failed") showError(new AvatarError("This could not be spoken to its end."));
});

avatar.addEventListener("interrupted", ({ detail }) => {
  waiting.clear();
  $("file-text").innerHTML = FILE_TEXT;
  if (detail.played_ms != null) showStatus(`Interrupted after ${(detail.played_ms / 1000).toFixed(1)} s`, 3000);
});

avatar.addEventListener("error", ({ detail }) => {
  if (detail.code === "engine_lost" && !detail.in_reply_to) {
    return showNote(`${detail.message ?? "The engine is being started again."} The session goes on.`, 8000);
  }
  showError(new AvatarError(detail.message ?? "The server reported an error.", detail));
  if (detail.in_reply_to !== "set_avatar") return;
  awaited = null;
  followSession();
});

avatar.addEventListener("session", followSession);

/** Marks the presenter the server shows, unless another was just asked for: it comes when nothing is being said. */
function followSession() {
  const name = avatar.session?.avatar;
  if (!name || (awaited && name !== awaited)) return;
  awaited = null;
  const input = $("gallery").querySelector(`input[value="${CSS.escape(name)}"]`);
  if (!input || input.checked) return;
  input.checked = true;
  showPresenter(everyone().find((each) => each.name === name));
}

// ---------- controls ----------

const FILE_TEXT = $("file-text").innerHTML;

function setTool(button, isPressed, icon, words) {
  button.setAttribute("aria-pressed", String(isPressed));
  button.querySelector("use").setAttribute("href", icon);
  button.querySelector("span").textContent = words;
}

function paintMicrophone() {
  const isOn = avatar.state === "live" ? Boolean(microphone?.enabled) : wantsMicrophone;
  setTool($("mic"), isOn, isOn ? "#i-mic" : "#i-mic-off", isOn ? "Microphone" : "Mic off");
}
avatar.addEventListener("statechange", paintMicrophone);

async function toggleMicrophone() {
  if (avatar.state === "idle" || avatar.state === "lost") {
    wantsMicrophone = !wantsMicrophone;
  } else if (microphone) {
    microphone.enabled = !microphone.enabled;
    wantsMicrophone = microphone.enabled;
    avatar.send({ type: "microphone", enabled: microphone.enabled });
  } else {
    wantsMicrophone = true;
    const track = await takeMicrophone();
    if (track && !(await avatar.sendMicrophone(track))) {
      releaseMicrophone();
      showNote("The microphone is allowed now. Press Stop and Start to use it.");
    }
  }
  paintMicrophone();
}

async function say(event) {
  event.preventDefault();
  const text = $("say-text").value.trim();
  if (!text || avatar.state !== "live") return $("say-text").focus();
  await avatar.say(text);
  $("say-text").value = "";
}

async function playFile(file) {
  if (!file) return;
  if (avatar.state !== "live") throw new AvatarError("Press Start first, then drop the file again.");
  $("file-text").textContent = `Sending ${file.name} …`;
  try {
    const { utterance } = await avatar.sendFile(file);
    waiting.set(utterance, file.name);
    $("file-text").textContent = avatar.isSpeaking ? `Waiting: ${file.name}` : `Playing ${file.name}`;
  } catch (error) {
    $("file-text").innerHTML = FILE_TEXT;
    throw error;
  }
}

function showPresenter(chosen) {
  if (!chosen) return;
  presenter = chosen;
  $("poster").src = chosen.picture;
  const name = chosen.label ?? capital(chosen.name);
  $("poster").alt = chosen.description ? `${name}: ${chosen.description}` : name;
}

function choosePresenter(chosen) {
  showPresenter(chosen);
  if (avatar.state === "starting" || (avatar.state === "live" && avatar.setAvatar(chosen.name))) awaited = chosen.name;
}

function everyone() {
  return own.presenter ? [...presenters, own.presenter] : presenters;
}

function fillGallery() {
  buildGallery($("presenters"), everyone(), presenter?.name, choosePresenter);
  $("own-open-text").textContent = own.presenter ? "Change your picture" : "Use your own picture";
}

own.addEventListener("change", ({ detail: mine }) => {
  const isShown = everyone().some(({ name }) => name === presenter?.name);
  if (mine || !isShown) choosePresenter(mine ?? presenters[0]);
  fillGallery();
});

/** Whatever is dropped on the page: a picture to talk, or a sound to be said. */
function takeFile(file) {
  if (file && ($("own").open || isPicture(file))) own.take(file);
  else return playFile(file);
}

function changeDirection(change) {
  direction = { ...direction, ...change };
  if (avatar.state === "live") avatar.direct(change);
}

function toggleFullScreen() {
  if (document.fullscreenElement) return document.exitFullscreen();
  if (screen.requestFullscreen) return screen.requestFullscreen();
  return video.webkitEnterFullscreen?.(); // iPhones know it only for the video itself
}

async function copyViewerLink() {
  const link = new URL(`viewer.html?session=${encodeURIComponent(avatar.session.id)}`, location.href).href;
  const words = $("copy-link").querySelector("span");
  try {
    await navigator.clipboard.writeText(link);
    words.textContent = "Link copied";
    setTimeout(() => (words.textContent = "Copy a link for viewers"), 2500);
  } catch {
    showNote(`The link for viewers: ${link}`);
  }
}

$("start").addEventListener("click", () => attempt(start));
$("stop").addEventListener("click", () => attempt(stop));
$("mic").addEventListener("click", () => attempt(toggleMicrophone));
$("interrupt").addEventListener("click", () => attempt(() => avatar.interrupt()));
$("fullscreen").addEventListener("click", () => attempt(toggleFullScreen));
$("copy-link").addEventListener("click", () => attempt(copyViewerLink));
$("mute").addEventListener("click", () => (video.muted = !video.muted));
video.addEventListener("volumechange", () => {
  setTool($("mute"), video.muted, video.muted ? "#i-sound-off" : "#i-sound", video.muted ? "Unmute" : "Mute");
});
$("error-close").addEventListener("click", () => ($("error").hidden = true));
$("note-close").addEventListener("click", () => ($("note").hidden = true));

$("say-form").addEventListener("submit", (event) => attempt(() => say(event)));
// In full screen the browser takes the key, to leave it.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || $("own").open) return; // the dialog takes it, to close
  if (avatar.isSpeaking) avatar.interrupt().catch(showError);
});

$("say-text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("say-form").requestSubmit();
});

$("file").addEventListener("change", async () => {
  const [file] = $("file").files;
  await attempt(() => playFile(file));
  $("file").value = ""; // so that the same file can be chosen again
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("is-over", name === "dragenter" || name === "dragover");
    if (name === "drop") attempt(() => takeFile(event.dataTransfer.files[0]));
  });
}
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    document.body.classList.toggle("is-dropping", name === "dragover");
    if (event.defaultPrevented) return;
    event.preventDefault(); // else the browser would open it
    if (name === "drop") attempt(() => takeFile(event.dataTransfer.files[0]));
  });
}
document.addEventListener("paste", ({ clipboardData }) => {
  const file = [...clipboardData.files].find(isPicture);
  if (file && !clipboardData.types.includes("text/plain")) own.take(file);
});
$("own-open").addEventListener("click", () => own.open());

buildChips($("emotion"), EMOTIONS, direction.emotion, (emotion) => changeDirection({ emotion }));
$("gestures").addEventListener("input", () => {
  const value = Number($("gestures").value);
  const words = value < 0.1 ? "still" : value < 0.8 ? "calm" : value <= 1.2 ? "natural" : "lively";
  $("gestures-text").textContent = words;
  $("gestures").setAttribute("aria-valuetext", words);
});
$("gestures").addEventListener("change", () => changeDirection({ gestures: Number($("gestures").value) }));

window.addEventListener("pagehide", () => {
  releaseMicrophone();
  avatar.stop({ isLeaving: true });
});
setInterval(() => fillPanel(window.avatarStats()), 500);
fillPanel(null);
paintMicrophone();

// ---------- the gallery, and ready ----------

await attempt(async () => {
  showStatus("Loading");
  try {
    presenters = await avatar.list();
  } catch (error) {
    showStatus("Not connected");
    throw error;
  } finally {
    $("start").disabled = false;
  }
  const wished = presenters.find(({ name }) => name === options.get("avatar"));
  showPresenter(wished ?? presenters[0]);
  await own.restore();
  if (wished) showPresenter(wished);
  fillGallery();
  if (avatar.state === "idle") showStatus("Ready");
});
