// The page put together.

import { onKeyNeeded } from "./api.js";
import { mountChat } from "./chat.js";
import { byId } from "./dom.js";
import { askForKey } from "./key.js";
import { mountMicroscope } from "./microscope.js";
import { mountSettings } from "./settings.js";

onKeyNeeded(askForKey);
const microscope = mountMicroscope();
const chat = mountChat(microscope.look);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.defaultPrevented && !byId("key").open && (chat.stop() || microscope.stop())) {
    event.preventDefault();
  }
});

function trouble(message) {
  byId("trouble").textContent = message;
  byId("trouble").hidden = false;
}

try {
  const models = await mountSettings();
  byId("send").disabled = models === 0;
  if (models === 0) trouble("There is no model on this server yet. In a terminal: ref-engine pull smollm2");
} catch (error) {
  trouble(`The models cannot be listed: ${error.message}`);
}
