// One WebRTC connection, offered over HTTP in the manner of WHIP and WHEP.
//
// The offer is posted before ICE gathering starts: the answer's Link headers then say which ICE servers to gather
// with, and the server is at work while the candidates are found. They follow in PATCHes.

import { AvatarError, iceServersOf, request } from "./api.js";

const CONNECT_TIMEOUT_MS = 15_000;
const NETWORK_TIMEOUT_MS = 3000; // candidates of this machine are there within milliseconds, or never

/**
 * Events: `message` (detail: the parsed object), `state` (detail: RTCPeerConnection.connectionState), `channelclosed`.
 */
export class Connection extends EventTarget {
  #url = null; // of the connection's resource, for PATCH and DELETE
  #candidates = [];
  #hasFound = false; // a candidate
  #isGathered = false;
  #isEndSent = false;
  #isPatching = false;
  #isClosed = false;
  #abort = new AbortController();
  #headers;

  /** @param {{headers?: Record<string, string>}} options  for every request, an Authorization for instance */
  constructor({ headers = {} } = {}) {
    super();
    this.#headers = headers;
    this.peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    this.stream = new MediaStream();
    this.channel = null;
    this.audioSender = null;
    this.peer.addEventListener("track", ({ track }) => this.stream.addTrack(track));
    this.peer.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate?.candidate) {
        this.#hasFound = true;
        this.#candidates.push(candidate);
      } else this.#isGathered = true;
      this.#patch();
    });
    this.peer.addEventListener("connectionstatechange", () => {
      if (this.peer.connectionState === "disconnected") this.restart();
      this.#emit("state", this.peer.connectionState);
    });
  }

  /**
   * Offers to `url` and resolves when the media is connected.
   *
   * @param {string} url  of the session's `webrtc` or `whep`
   * @param {object} options
   * @param {MediaStreamTrack | null} [options.microphone]  is sent; null leaves room for one later
   * @param {boolean} [options.isReceiveOnly]  there will never be one
   * @param {boolean} [options.hasChannel]  for messages
   * @param {number} [options.bufferMs]  least jitter buffer, the same for sound and picture
   */
  async open(url, { microphone = null, isReceiveOnly = false, hasChannel = true, bufferMs } = {}) {
    const { peer } = this;
    const audio = peer.addTransceiver(microphone ?? "audio", { direction: isReceiveOnly ? "recvonly" : "sendrecv" });
    this.audioSender = isReceiveOnly ? null : audio.sender;
    peer.addTransceiver("video", { direction: "recvonly" });
    if (bufferMs !== undefined) {
      for (const receiver of peer.getReceivers()) receiver.jitterBufferTarget = bufferMs;
    }
    if (hasChannel) this.#openChannel();

    const offer = await peer.createOffer();
    const response = await request(url, {
      method: "POST",
      headers: { ...this.#headers, "Content-Type": "application/sdp" },
      body: offer.sdp,
      signal: this.#abort.signal,
    });
    this.#url = new URL(response.headers.get("Location") ?? "", response.url).href;
    const answer = await response.text();
    if (this.#isClosed) return this.#delete(false);
    const iceServers = iceServersOf(response);
    if (iceServers.length) peer.setConfiguration({ ...peer.getConfiguration(), iceServers });
    await peer.setLocalDescription(offer);
    await peer.setRemoteDescription({ type: "answer", sdp: answer });
    this.#patch();
    await this.#connected();
  }

  /** Looks for a new way to the server, when the network has changed; what arrives by the old one goes on meanwhile. */
  async restart() {
    const { peer } = this;
    if (!this.#url || this.#isClosed) return;
    try {
      const offer = await peer.createOffer({ iceRestart: true });
      const response = await this.#send(sdpFragment(offer.sdp, [], false), { "If-Match": '"*"' });
      if (response.status !== 200) return;
      const sdp = restartedAnswer(peer.remoteDescription.sdp, await response.text());
      await peer.setLocalDescription(offer);
      await peer.setRemoteDescription({ type: "answer", sdp });
    } catch {
      // Not the end: the old way may come back, and if it does not, the connection's state will say so.
    }
  }

  /** Sends a message over the data channel; false if it is not open. */
  send(message) {
    if (this.channel?.readyState !== "open") return false;
    this.channel.send(JSON.stringify(message));
    return true;
  }

  /**
   * Ends the connection. Safe to call at any time, more than once.
   *
   * @param {{isLeaving?: boolean, isKnown?: boolean}} options  leaving: the page goes away; known: the server learns of
   *     it in another way, by the end of the whole session
   */
  close({ isLeaving = false, isKnown = false } = {}) {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#abort.abort();
    this.peer.close();
    this.stream.getTracks().forEach((track) => track.stop());
    this.#emit("state", "closed");
    if (!isKnown) this.#delete(isLeaving);
  }

  #openChannel() {
    this.channel = this.peer.createDataChannel("events", { ordered: true });
    this.channel.addEventListener("message", ({ data }) => {
      try {
        this.#emit("message", JSON.parse(data));
      } catch {
        console.warn("a message that is not JSON was ignored");
      }
    });
    this.channel.addEventListener("close", () => this.#isClosed || this.#emit("channelclosed"));
  }

  #connected() {
    const { peer } = this;
    return new Promise((resolve, reject) => {
      const fail = (message, code) => finish(() => reject(new AvatarError(message, { code })));
      const failOnTheWay = () => fail(this.#hasFound ? NO_ROUTE : NO_NETWORK, "network");
      const check = () => {
        if (peer.connectionState === "connected") finish(resolve);
        if (peer.connectionState === "failed") failOnTheWay();
        if (peer.connectionState === "closed" || this.#isClosed) fail("The connection was closed.", "closed");
      };
      const finish = (then) => {
        timers.forEach(clearTimeout);
        this.removeEventListener("state", check);
        then();
      };
      const timers = [
        setTimeout(failOnTheWay, CONNECT_TIMEOUT_MS),
        setTimeout(() => !this.#hasFound && peer.iceConnectionState === "new" && failOnTheWay(), NETWORK_TIMEOUT_MS),
      ];
      this.addEventListener("state", check);
      check();
    });
  }

  /** Sends the candidates found so far, one PATCH at a time so that they arrive in order. */
  async #patch() {
    const isEnd = this.#isGathered && !this.#isEndSent;
    if (!this.#candidates.length && !isEnd) return;
    if (!this.#url || !this.peer.localDescription || this.#isPatching || this.#isClosed) return;
    const candidates = this.#candidates.splice(0);
    this.#isEndSent ||= isEnd;
    this.#isPatching = true;
    try {
      await this.#send(sdpFragment(this.peer.localDescription.sdp, candidates, isEnd));
    } catch (error) {
      // Not the end: the server may reach us all the same. If it cannot, the connection's state will say so.
      if (error.code !== "aborted") console.warn(`candidates were not accepted: ${error.message}`);
    } finally {
      this.#isPatching = false;
    }
    await this.#patch();
  }

  #send(fragment, headers = {}) {
    return request(this.#url, {
      method: "PATCH",
      headers: { ...this.#headers, ...headers, "Content-Type": "application/trickle-ice-sdpfrag" },
      body: fragment,
      signal: this.#abort.signal,
    });
  }

  async #delete(isLeaving) {
    if (!this.#url) return;
    const url = this.#url;
    this.#url = null;
    try {
      await request(url, { method: "DELETE", headers: this.#headers, keepalive: isLeaving });
    } catch {
      // It is gone already, or the server is: either way there is nothing left to end.
    }
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

const NO_NETWORK =
  "This browser finds no network on this machine, and without one makes no connection, not even to a server here. " +
  "Connect the machine to a network, or start Chromium with --allow-loopback-in-peer-connection.";

const NO_ROUTE =
  "No way for picture and sound was found between this browser and the server: " +
  "a firewall may block UDP. The server can be given a TURN server with --ice-server.";

/** The body of a trickle PATCH (RFC 8840): all media is bundled, so the first section stands for all. */
function sdpFragment(sdp, candidates, isEnd) {
  const attribute = (name) => new RegExp(`^a=${name}:(.*?)\\r?$`, "m").exec(sdp)?.[1] ?? "";
  const media = /^m=.*$/m.exec(sdp)[0].trim();
  const lines = [
    `a=ice-ufrag:${attribute("ice-ufrag")}`,
    `a=ice-pwd:${attribute("ice-pwd")}`,
    media,
    `a=mid:${attribute("mid")}`,
    ...candidates.map(({ candidate }) => `a=${candidate}`),
  ];
  if (isEnd) lines.push("a=end-of-candidates");
  return `${lines.join("\r\n")}\r\n`;
}

/** The answer with the credentials and candidates of an ICE restart in every section. */
function restartedAnswer(sdp, fragment) {
  const fresh = fragment.match(/^a=(?:ice-ufrag|ice-pwd|candidate):.*$/gm).map((line) => `${line.trim()}\r\n`);
  const rest = sdp.replace(/^a=(?:candidate:.*|end-of-candidates|ice-pwd:.*)\r?\n/gm, "");
  return rest.replace(/^a=ice-ufrag:.*\r?\n/gm, () => fresh.join(""));
}
