// The avatar for your own page: a session at the server, its connection, and the messages both ways.
//
//   import { Avatar } from "https://your-server/js/avatar.js";
//   const avatar = new Avatar({ video: document.querySelector("video") });
//   button.onclick = () => avatar.start({ avatar: "maya" }).then(() => avatar.say("Hello."));
//
// Events: every message of the server under its own `type` (docs/protocol.md; detail: the message), `statechange`
// (detail: "idle", "starting", "live" or "lost") and `lost` (detail: an AvatarError).

import { AvatarError, request } from "./api.js";
import { Connection } from "./connection.js";

export { AvatarError };

const SILENCE_BEFORE_CHECK_MS = 4000; // no message of the server for so long: ask whether it is still there
const SERVER_ROOT = new URL("..", import.meta.url).href;

const CLOSED_BECAUSE = {
  deleted: "The session was ended.",
  server_stopping: "The server is shutting down.",
  time_limit: "The session has reached its longest time.",
  engine_lost: "The engine that makes the picture stopped and could not be started again.",
  idle: "The session ended because nobody was connected.",
  internal: "Something failed on the server.",
};

export class Avatar extends EventTarget {
  #headers;
  #watch = null;
  #heardAt = 0;
  #startNumber = 0; // a start that was overtaken by stop() must not go on

  /**
   * @param {{video?: HTMLVideoElement, server?: string, token?: string}} options  `server` defaults to where this
   *     module came from; `token` is the one the server was started with, if it was
   */
  constructor({ video = null, server = SERVER_ROOT, token = null } = {}) {
    super();
    this.#headers = token ? { Authorization: `Bearer ${token}` } : {};
    this.server = server;
    this.video = video;
    this.state = "idle";
    this.session = null;
    this.connection = null;
    this.metrics = null; // the server's newest
    this.isSpeaking = false;
  }

  /** The presenters: `[{name, description, picture, preset, prompt}]`, pictures as full URLs. */
  async list() {
    const response = await this.#request(this.#url("v1/avatars"));
    const avatars = await response.json();
    return avatars.map((avatar) => ({ ...avatar, picture: new URL(avatar.picture, response.url).href }));
  }

  /**
   * Makes an avatar of a picture file: `{id, picture, checks, expires}`. The id is for `start` and `setAvatar`, and known
   * to nobody else. Throws an AvatarError with `checks` where none can be made of it.
   *
   * @param {File} file  JPEG, PNG, WebP or HEIC
   * @param {{hasConsent: boolean}} options  the person in it agrees; nothing is sent otherwise
   */
  async addPicture(file, { hasConsent }) {
    if (!hasConsent) throw new AvatarError("The person in the picture has to agree to it.", { code: "forbidden" });
    const headers = { "Content-Type": file.type || "application/octet-stream" };
    const url = this.#url("v1/avatars?consent=yes");
    const response = await this.#request(url, { method: "POST", headers, body: file });
    const own = await response.json();
    return { ...own, picture: new URL(own.picture, response.url).href };
  }

  /** Removes a picture that `addPicture` brought. */
  async removePicture(id) {
    await this.#request(this.#url(`v1/avatars/${encodeURIComponent(id)}`), { method: "DELETE" });
  }

  /**
   * Opens a session and plays it in the video element. Call it from a click, or the browser may refuse the sound.
   *
   * @param {object} options
   * @param {string} [options.avatar]
   * @param {string} [options.prompt]
   * @param {boolean} [options.bargeIn]  the caller's voice interrupts a text that is being spoken
   * @param {MediaStreamTrack | null | Promise<MediaStreamTrack | null>} [options.microphone]  what the presenter says
   *     after the caller; null: none now, see `sendMicrophone`
   * @param {boolean} [options.isReceiveOnly]  no sound will ever be sent
   * @param {number} [options.bufferMs]  least that the browser holds back against an uneven network; it decides itself
   */
  async start({ avatar, prompt, bargeIn, microphone = null, isReceiveOnly = false, bufferMs } = {}) {
    await this.stop();
    const number = ++this.#startNumber;
    const isOvertaken = () => number !== this.#startNumber;
    this.#enter("starting");
    const connection = new Connection({ headers: this.#headers });
    this.connection = connection;
    this.#listen(connection);
    this.#showVideo(connection.stream);
    try {
      const body = withoutUndefined({ avatar, prompt, barge_in: bargeIn, mode: "conversation" });
      // The question for the microphone and the making of the session take their time side by side.
      const [response, track] = await Promise.all([
        this.#post(this.#url("v1/sessions"), body).then((answer) => answer.json()),
        microphone,
      ]);
      if (isOvertaken()) {
        this.#deleteSession(response.id);
        throw new AvatarError("This was cancelled.", { code: "aborted" });
      }
      this.session = response;
      await connection.open(this.#sessionUrl("webrtc"), {
        microphone: track,
        isReceiveOnly: isReceiveOnly && !track,
        bufferMs,
      });
      if (isOvertaken()) throw new AvatarError("This was cancelled.", { code: "aborted" });
      this.#heardAt = performance.now();
      this.#watch = setInterval(() => this.#checkServer(), 1000);
      this.#enter("live");
    } catch (error) {
      if (!isOvertaken()) await this.stop();
      else connection.close();
      throw error instanceof AvatarError ? error : new AvatarError(`The browser could not connect: ${error.message}`);
    }
  }

  /** Ends the session here and at the server. `isLeaving`: the page is going away. */
  async stop({ isLeaving = false } = {}) {
    this.#startNumber++;
    if (this.state === "idle") return;
    const id = this.session?.id;
    this.#disconnect();
    this.#enter("idle");
    if (id) await this.#deleteSession(id, isLeaving);
  }

  /** Speaks a text, after what is being spoken. */
  async say(text, id) {
    const message = withoutUndefined({ text, id });
    if (this.send({ type: "say", ...message })) return;
    await this.#post(this.#sessionUrl("say"), message);
  }

  /** Speaks a sound file (WAV, MP3, Opus …). Resolves with `{utterance, duration_ms}` when it is accepted. */
  async sendFile(file) {
    const headers = { "Content-Type": file.type || "application/octet-stream" };
    const response = await this.#request(this.#sessionUrl("audio"), { method: "POST", headers, body: file });
    return response.json();
  }

  /** Stops what is being said and forgets what is queued. The `interrupted` event says how much was played. */
  async interrupt() {
    if (this.send({ type: "interrupt" })) return;
    await this.#request(this.#sessionUrl("interrupt"), { method: "POST" });
  }

  /** @param {{prompt?: string, emotion?: string, gestures?: number}} direction  from the next chunk on */
  direct(direction) {
    return this.send({ type: "set_prompt", ...withoutUndefined(direction) });
  }

  setAvatar(name) {
    return this.send({ type: "set_avatar", avatar: name });
  }

  /** Sends this track from now on, or nothing with null. False if the connection only receives. */
  async sendMicrophone(track) {
    const sender = this.connection?.audioSender;
    if (!sender) return false;
    await sender.replaceTrack(track);
    this.send({ type: "microphone", enabled: track !== null });
    return true;
  }

  /** Sends any message of the protocol over the data channel; false if it is not open. */
  send(message) {
    return this.connection?.send(message) ?? false;
  }

  /** Where others can watch this session: for a WHEP player. */
  get whepUrl() {
    return this.session ? this.#sessionUrl("whep") : null;
  }

  #listen(connection) {
    connection.addEventListener("message", ({ detail }) => this.#take(detail));
    connection.addEventListener("channelclosed", () => this.#checkServer(true));
    connection.addEventListener("state", ({ detail }) => {
      if (detail === "failed" && this.state === "live") {
        this.#lose(new AvatarError("The connection to the server was lost.", { code: "network" }));
      }
    });
  }

  #take(message) {
    if (typeof message?.type !== "string") return;
    this.#heardAt = performance.now();
    if (message.type === "session") this.session = { ...this.session, ...(message.session ?? message) };
    if (message.type === "metrics") this.metrics = message;
    if (message.type === "state") this.isSpeaking = message.state === "speaking";
    this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
    if (message.type === "closed") {
      const words = CLOSED_BECAUSE[message.reason] ?? "The server ended the session.";
      this.#lose(new AvatarError(words, { code: message.reason ?? "closed" }));
    }
  }

  /** ICE takes half a minute to notice a server that is gone; a question over HTTP tells at once. */
  async #checkServer(isSuspicious = false) {
    const silence = performance.now() - this.#heardAt;
    if (this.state !== "live" || (!isSuspicious && silence < SILENCE_BEFORE_CHECK_MS)) return;
    this.#heardAt = performance.now();
    const { session } = this;
    try {
      await this.#request(this.#sessionUrl(""), { signal: AbortSignal.timeout(3000) });
      if (isSuspicious) throw new AvatarError("The connection to the server was lost.", { code: "network" });
    } catch (error) {
      if (this.session !== session || this.state !== "live") return;
      const isGone = error.code === "unknown_session" || error.status === 404;
      this.#lose(isGone ? new AvatarError("The session has ended.", { code: "closed" }) : error);
    }
  }

  #lose(error) {
    if (this.state !== "live" && this.state !== "starting") return;
    const id = this.session?.id;
    this.#startNumber++;
    this.#disconnect();
    this.#enter("lost");
    this.dispatchEvent(new CustomEvent("lost", { detail: error }));
    if (id && error.code === "network") this.#deleteSession(id); // else it has ended, or cannot be told
  }

  #disconnect() {
    clearInterval(this.#watch);
    this.connection?.close({ isKnown: true }); // the session ends, and its connections with it
    this.connection = null;
    this.session = null;
    this.metrics = null;
    this.isSpeaking = false;
    if (this.video) this.video.srcObject = null;
  }

  #showVideo(stream) {
    if (!this.video) return;
    this.video.srcObject = stream;
    this.video.play().catch((error) => {
      // A browser that refuses sound still shows the picture; the page can then offer to unmute.
      if (error.name !== "NotAllowedError") return;
      this.video.muted = true;
      this.video.play().catch(() => {});
    });
  }

  async #deleteSession(id, isLeaving = false) {
    try {
      const url = this.#url(`v1/sessions/${encodeURIComponent(id)}`);
      await this.#request(url, { method: "DELETE", keepalive: isLeaving });
    } catch {
      // It ended on its own, or the server is gone: nothing is left to end.
    }
  }

  #request(url, options = {}) {
    return request(url, { ...options, headers: { ...this.#headers, ...options.headers } });
  }

  #post(url, body) {
    const headers = { "Content-Type": "application/json" };
    return this.#request(url, { method: "POST", headers, body: JSON.stringify(body) });
  }

  #enter(state) {
    if (this.state === state) return;
    this.state = state;
    this.dispatchEvent(new CustomEvent("statechange", { detail: state }));
  }

  #url(path) {
    return new URL(path, this.server).href;
  }

  #sessionUrl(part) {
    if (!this.session) throw new AvatarError("Nothing is started yet.", { code: "closed" });
    return this.#url(`v1/sessions/${encodeURIComponent(this.session.id)}${part ? `/${part}` : ""}`);
  }
}

function withoutUndefined(fields) {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
