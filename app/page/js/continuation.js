// Going on from exactly these tokens: the stream of /api/lens/generate into a branch of the text.

import { lines } from "./api.js";

const settingsOfLast = { max_tokens: 32, temperature: 0 };

/** How many tokens, and how warm; kept for the next time. */
export const wishes = () => settingsOfLast;

/** `branch`: {model, tokens, answer}, whose answer grows. Gives {branch, run, abort, onToken}. `run` resolves to the
 *  message of what went wrong, or null; to be stopped is not wrong. */
export function continuation(branch) {
  const control = new AbortController();
  const made = { branch, onToken: () => {}, abort: () => control.abort(), ended: null };
  made.run = async () => {
    try {
      const body = { model: branch.model, tokens: branch.tokens, ...settingsOfLast };
      for await (const line of lines("/api/lens/generate", body, control.signal)) {
        if (line.done) continue;
        branch.answer.tokens.push(line);
        made.onToken(line);
      }
      return null;
    } catch (error) {
      return error.name === "AbortError" ? null : error.message;
    }
  };
  return made;
}
