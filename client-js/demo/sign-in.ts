/** Asks who somebody is: for a name at the first visit, for a token where the server wants one. */
import { byId, setText } from "./dom.js";
import { anyName, becomeKnown, keepToken } from "./identity.js";

const dialog = byId("sign-in", HTMLDialogElement);
const form = byId("sign-in-form", HTMLFormElement);
const name = byId("sign-in-name", HTMLInputElement);
const token = byId("sign-in-token", HTMLTextAreaElement);
const withToken = byId("sign-in-more", HTMLDetailsElement);
const why = byId("sign-in-why", HTMLElement);

let done: (() => void) | null = null;

/** Asks for a name. Whoever closes the question is called what it suggests. Resolves when it is known. */
export function askName(current: string | null): Promise<void> {
  name.value = current ?? anyName();
  setText(why, "Others in a session see this name beside what you say.");
  withToken.open = false;
  return ask(name);
}

/** Asks for a token, saying what is missing. Resolves when there is another one; closing the question leaves all as it is. */
export function askToken(reason: string): Promise<void> {
  setText(why, reason);
  withToken.open = true;
  return ask(token);
}

function ask(first: HTMLInputElement | HTMLTextAreaElement): Promise<void> {
  if (!dialog.open) dialog.showModal();
  first.focus();
  first.select();
  return new Promise((resolve) => {
    done = resolve;
  });
}

function finish(): void {
  const called = name.value.trim();
  if (called !== "") becomeKnown(called);
  const given = token.value.trim();
  if (given !== "") keepToken(given);
  token.value = "";
  dialog.close();
  done?.();
  done = null;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  finish();
});
token.addEventListener("keydown", (event) => {
  // A token has no lines.
  if (event.key !== "Enter") return;
  event.preventDefault();
  finish();
});
dialog.addEventListener("cancel", (event) => {
  event.preventDefault();
  if (withToken.open && token.value.trim() === "" && name.value.trim() === "") dialog.close();
  else finish();
});
