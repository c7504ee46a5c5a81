// Every failure that a caller can meet, with what to do about it.

/** What went wrong, and the remedy. `message` holds both. */
export class LeanmatchError extends Error {
  override name = "LeanmatchError";
  /** What to do about it; may be empty. */
  readonly remedy: string;

  constructor(problem: string, remedy = "") {
    super(remedy ? `${problem}: ${remedy}` : problem);
    this.remedy = remedy;
  }
}

/** An error as it crosses from the worker, and back. */
export interface PlainError { name: string; message: string; remedy: string }

export function plain(error: unknown): PlainError {
  if (error instanceof LeanmatchError) return { name: error.name, message: error.message, remedy: error.remedy };
  if (error instanceof RangeError && /memory|allocat|buffer/i.test(error.message)) return plain(outOfMemory());
  const { name = "Error", message = String(error) } = (error ?? {}) as Error;
  return { name, message, remedy: "" };
}

export function revived({ name, message, remedy }: PlainError): Error {
  if (name === "AbortError") return new DOMException(message, "AbortError");
  const error = new LeanmatchError(message);
  return Object.assign(error, { name: name === "LeanmatchError" ? name : `LeanmatchError (${name})`, remedy });
}

export function outOfMemory(): LeanmatchError {
  return new LeanmatchError("the browser gives this page no more memory", "close other tabs and load the page again");
}
