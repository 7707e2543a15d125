/** The one error class of the client, and the ways to make it. */

/** A call failed: the server refused it, could not be reached, or the source could not be read. */
export class PosewrightError extends Error {
  /**
   * @param {string} detail What was expected, what was found, and what to do.
   * @param {{ status?: number, type?: string, title?: string, requestId?: string | null, retryAfterS?: number | null,
   *   problem?: Record<string, unknown>, cause?: unknown }} [fields]
   */
  constructor(detail, { status = 0, type, title, requestId, retryAfterS, problem, cause } = {}) {
    super(detail, { cause });
    this.name = "PosewrightError";
    this.detail = detail;
    /** HTTP status; 0 if there was no response. */
    this.status = status;
    /** URI of the kind of problem; `urn:posewright:client:…` if the error comes from this client. */
    this.type = type ?? "about:blank";
    this.title = title ?? "";
    this.requestId = requestId ?? null;
    /** Seconds after which the server asks for a retry. */
    this.retryAfterS = retryAfterS ?? null;
    /** The whole problem document (RFC 9457), including its extension members. */
    this.problem = problem ?? {};
  }

  /** Last part of `type`, e.g. `unknown-model`. */
  get slug() {
    return this.type.split(/[:/]/).at(-1) ?? "";
  }

  /**
   * @param {Record<string, any>} problem Problem document (RFC 9457).
   * @param {number | null} [retryAfterS]
   */
  static from(problem, retryAfterS) {
    const { detail, title, status, type, request_id: requestId } = problem;
    return new PosewrightError(detail ?? title ?? "the server failed", {
      status, type, title, requestId, retryAfterS, problem,
    });
  }
}

/**
 * Make the `type` of an error that this client raises itself.
 *
 * @param {string} slug
 */
export function clientType(slug) {
  return `urn:posewright:client:${slug}`;
}

/**
 * The server did not respond.
 *
 * @param {URL} url
 * @param {unknown} cause
 */
export function unreachable(url, cause) {
  const detail = `no response from ${url.origin}; is the server running, and does its cors_origins list this page?`;
  return new PosewrightError(detail, { type: clientType("unreachable"), title: "The server cannot be reached", cause });
}

/**
 * The API key cannot be sent.
 *
 * @param {unknown} cause
 */
export function badKey(cause) {
  const detail = "expected an API key of letters, digits and !#$%&'*+.^_`|~- only, got other characters";
  return new PosewrightError(detail, { status: 401, type: clientType("bad-key"), title: "Not an API key", cause });
}

/**
 * The server responded with an error status.
 *
 * @param {Response} response
 */
export async function refusal(response) {
  const retryAfterS = parseRetryAfter(response.headers.get("Retry-After"));
  const problem = await response.json().catch(() => ({}));
  const { status, statusText } = response;
  const fallback = { status, detail: `the server responded with ${status} ${statusText}`.trim() };
  return PosewrightError.from({ ...fallback, ...problem }, retryAfterS);
}

/**
 * Parse the header `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
 *
 * @param {string | null} value
 * @returns {number | null} Seconds; null if it is neither.
 */
function parseRetryAfter(value) {
  if (value === null || value.trim() === "") return null;
  if (/^\s*\d+\s*$/.test(value)) return Number(value);
  const dateMs = Date.parse(value);
  return Number.isNaN(dateMs) ? null : Math.max(0, (dateMs - Date.now()) / 1000);
}

/**
 * The WebSocket of a stream was closed.
 *
 * @param {number} code WebSocket close code.
 * @param {string} reason
 * @param {Record<string, any> | null} [problem]
 */
export function streamClosed(code, reason, problem) {
  if (problem) return PosewrightError.from(problem);
  const detail = reason || "the connection broke, or there is no posewright server at this address";
  return new PosewrightError(detail, { type: clientType(`stream-closed-${code}`), title: "The stream was closed" });
}
