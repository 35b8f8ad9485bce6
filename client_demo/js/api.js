// HTTP to the server: one request function, and errors that carry a sentence for people.

/**
 * What went wrong, in words. `code` is the protocol's, or `unreachable`, `closed`, `network`, `aborted`; `checks` is what
 * was found in a picture that is refused: `[{name, verdict, advice}]`.
 */
export class AvatarError extends Error {
  constructor(message, { code = "internal", status = 0, retryAfterS = null, checks = [] } = {}) {
    super(message);
    this.name = "AvatarError";
    this.code = code;
    this.status = status;
    this.retryAfterS = retryAfterS;
    this.checks = checks;
  }
}

/** fetch() whose every failure is an AvatarError. */
export async function request(url, options = {}) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (cause) {
    if (cause.name === "AbortError") throw new AvatarError("This was cancelled.", { code: "aborted" });
    throw new AvatarError("The server cannot be reached. Check that it is running.", { code: "unreachable" });
  }
  if (!response.ok) throw await errorOf(response);
  return response;
}

async function errorOf(response) {
  const retryAfterS = Number.parseFloat(response.headers.get("Retry-After")) || null;
  let message = `The server answered ${response.status}${response.statusText ? ` ${response.statusText}` : ""}.`;
  let code = "internal";
  let checks;
  try {
    const { error, ...rest } = await response.json();
    checks = rest.checks;
    if (error?.message) message = error.message;
    if (error?.code) code = error.code;
  } catch {
    // Not JSON: a proxy's page, perhaps. The status says enough.
  }
  if (retryAfterS) message += ` Try again in ${retryAfterS === 1 ? "a second" : `${retryAfterS} seconds`}.`;
  return new AvatarError(message, { code, status: response.status, retryAfterS, checks });
}

/** ICE servers from a WHIP-style `Link` header: `<turn:host?transport=udp>; rel="ice-server"; username="u"; …`. */
export function iceServersOf(response) {
  const header = response.headers.get("Link") ?? "";
  const servers = [];
  // A comma separates links only where "<" follows, for a credential may hold one.
  for (const link of header.split(/,\s*(?=<)/)) {
    const match = /^\s*<([^>]+)>\s*;(.*)$/.exec(link);
    if (!match) continue;
    const parameters = Object.fromEntries(
      [...match[2].matchAll(/([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))/g)].map(([, key, quoted, bare]) => [
        key.toLowerCase(),
        quoted?.replace(/\\(.)/g, "$1") ?? bare,
      ]),
    );
    if (parameters.rel !== "ice-server") continue;
    const server = { urls: match[1] };
    if (parameters.username) server.username = parameters.username;
    if (parameters.credential) server.credential = parameters.credential;
    servers.push(server);
  }
  return servers;
}
