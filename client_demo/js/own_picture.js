// A picture of your own to talk: dropped, pasted, chosen or taken with the camera; sent only with consent. Only this tab
// knows the name under which the server keeps it.

import { AvatarError } from "./api.js";
import { openDevice } from "./microphone.js";

const STORED = "own-picture";
const MOST_BYTES = 10 * 2 ** 20;
const KIND = /^image\/|\.(jpe?g|png|webp|hei[cf])$/i; // browsers know no type for some pictures of phones
const VERDICTS = { warning: "Warning", refused: "Refused" };
const WISHES = "One person from the front, well lit, mouth closed, with room around the head. Drop a picture here or paste one.";

export function isPicture(file) {
  return KIND.test(file.type) || KIND.test(file.name);
}

/** The dialog and what came of it. Event: `change` (detail: the new presenter, or null when it is gone). */
export class OwnPicture extends EventTarget {
  #avatar;
  #dialog;
  #file = null;
  #stream = null; // of the camera, while it is on
  #preview = null; // URL of the file
  #kept = null; // what the server answered
  #turn = 0; // answers that were overtaken must not be taken

  /** @param {{avatar: Avatar, dialog: HTMLDialogElement}} parts  the elements in it are called `own-…` */
  constructor({ avatar, dialog }) {
    super();
    this.#avatar = avatar;
    this.#dialog = dialog;
    const on = (name, type, action) => this.#part(name).addEventListener(type, action);
    on("close", "click", () => dialog.close());
    on("photo", "click", () => this.#attempt(() => this.#photograph()));
    on("remove", "click", () => this.#attempt(() => this.#remove()));
    on("file", "change", ({ target }) => {
      if (target.files.length) this.take(target.files[0]);
      target.value = ""; // so that the same file can be chosen again
    });
    on("form", "submit", (event) => {
      event.preventDefault();
      if (this.#step === "ready") dialog.close();
      else this.#attempt(() => this.#send());
    });
    dialog.addEventListener("close", () => this.#release());
  }

  /** As in the gallery, or null. */
  get presenter() {
    const { id: name, picture } = this.#kept ?? {};
    return name ? { name, picture, label: "Yours", description: "your own picture" } : null;
  }

  /** Takes up what this tab brought before, if the server still has it. */
  async restore() {
    const kept = JSON.parse(stored() ?? "null");
    if (!kept) return;
    const probe = new Image();
    probe.src = kept.picture;
    await probe.decode().then(
      () => this.#keep(kept),
      () => this.#keep(null),
    );
  }

  open() {
    if (this.#dialog.open) return;
    this.#enter(this.#kept ? "ready" : "empty");
    this.#dialog.showModal();
  }

  /** Shows a picture file and asks for consent. */
  take(file) {
    this.open();
    this.#release();
    const isTooLarge = file.size > MOST_BYTES;
    this.#file = isTooLarge || !isPicture(file) ? null : file;
    this.#preview = this.#file && URL.createObjectURL(file);
    this.#part("consent").checked = false;
    this.#enter(this.#file ? "chosen" : "empty");
    if (isTooLarge) this.#fail(new AvatarError("The file is too large: at most 10 MB."));
    else if (!this.#file) this.#fail(new AvatarError("This is no picture: take a JPEG, PNG, WebP or HEIC."));
  }

  /** The server has it no more. */
  forget() {
    this.#keep(null);
  }

  async #photograph() {
    if (this.#stream) {
      const camera = this.#part("camera");
      if (!camera.videoWidth) return;
      const canvas = new OffscreenCanvas(camera.videoWidth, camera.videoHeight);
      canvas.getContext("2d").drawImage(camera, 0, 0);
      const photo = await canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
      return this.take(new File([photo], "photo.jpg", { type: photo.type }));
    }
    this.#release();
    const turn = this.#turn;
    const video = { facingMode: "user", width: { ideal: 1280 }, height: { ideal: 720 } };
    const stream = await openDevice("camera", { video });
    this.#stream = stream;
    if (turn !== this.#turn) return this.#release();
    this.#enter("camera");
    this.#part("camera").srcObject = stream;
  }

  async #send() {
    if (!this.#file || !this.#part("consent").checked) return;
    const turn = ++this.#turn;
    this.#enter("sending");
    try {
      const kept = await this.#avatar.addPicture(this.#file, { hasConsent: true });
      if (turn !== this.#turn) return await this.#removeFromServer(kept.id);
      const before = this.#kept;
      this.#keep(kept);
      this.#enter("ready");
      if (before) await this.#removeFromServer(before.id);
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error.checks?.length) return this.#enter("refused", error.checks);
      if (this.#step === "sending") this.#enter("chosen");
      throw error;
    }
  }

  async #remove() {
    await this.#removeFromServer(this.#kept.id);
    this.#keep(null);
    this.#enter("empty");
  }

  async #removeFromServer(id) {
    try {
      await this.#avatar.removePicture(id);
    } catch (error) {
      if (error.code !== "unknown_avatar") throw error; // else its time is over, and it is gone already
    }
  }

  #keep(kept) {
    this.#kept = kept;
    store(kept);
    this.dispatchEvent(new CustomEvent("change", { detail: this.presenter }));
  }

  /** Lets go of file and camera, and of what is under way. */
  #release() {
    this.#turn++;
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#part("camera").srcObject = this.#stream = null;
    if (this.#preview) URL.revokeObjectURL(this.#preview);
    this.#file = this.#preview = null;
  }

  async #attempt(action) {
    try {
      await action();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error) {
    this.#part("error").textContent = error.message;
    this.#part("error").hidden = false;
  }

  // ---------- what is seen ----------

  get #step() {
    return this.#dialog.dataset.step;
  }

  /** @param {"empty" | "camera" | "chosen" | "sending" | "refused" | "ready"} step */
  #enter(step, checks = step === "ready" ? this.#kept.checks : []) {
    this.#dialog.dataset.step = step;
    const isReady = step === "ready";
    const isSending = step === "sending";
    const source = isReady ? this.#kept.picture : this.#preview;
    this.#part("error").hidden = true;
    this.#part("picture").hidden = !source;
    this.#part("camera").hidden = step !== "camera";
    this.#part("picture").alt = isReady ? "Your picture as it was cut" : (this.#file?.name ?? "");
    if (source) this.#part("picture").src = source;
    this.#part("photo").querySelector("span").textContent = step === "camera" ? "Take it" : "Take a photo";
    for (const name of ["photo", "file"]) this.#part(name).disabled = isSending;
    this.#part("agree").hidden = this.#part("consent").disabled = isReady || step === "refused";
    this.#part("remove").hidden = !isReady;
    this.#part("send").disabled = !isReady && step !== "chosen";
    this.#part("send").textContent = isReady ? "Done" : "Use this picture";
    const noted = checks.filter(({ verdict }) => verdict !== "ok");
    this.#part("checks").replaceChildren(...noted.map(line));
    this.#part("status").textContent = this.#words(noted.length);
    const next = { camera: "photo", chosen: "consent", refused: "file", ready: "send" }[step];
    if (next) this.#part(next).focus();
  }

  #words(noted) {
    if (this.#step === "sending") return "Looking at the picture …";
    if (this.#step === "ready") {
      const until = new Date(this.#kept.expires).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
      const how = noted ? "It works, and could be better." : "Nothing stands in its way.";
      return `This is how it was cut. ${how} Kept until ${until}, for nobody but you.`;
    }
    if (this.#step === "refused") return "No avatar can be made of this picture. Take another one.";
    return this.#step === "empty" ? WISHES : "";
  }

  #part(name) {
    return this.#dialog.querySelector(`#own-${name}`);
  }
}

function line({ verdict, advice }) {
  const item = document.createElement("li");
  item.className = verdict;
  const word = document.createElement("strong");
  word.textContent = VERDICTS[verdict] ?? verdict;
  item.append(word, " ", advice);
  return item;
}

// A browser may keep pages from storing anything: the picture then lasts as long as the page.

function stored() {
  try {
    return sessionStorage.getItem(STORED);
  } catch {
    return null;
  }
}

function store(kept) {
  try {
    if (kept) sessionStorage.setItem(STORED, JSON.stringify(kept));
    else sessionStorage.removeItem(STORED);
  } catch {
    // as said
  }
}
