// First the theme, then the first paint, then everything else, which would only delay it.

import { mountTheme } from "./theme.js";

mountTheme(document.getElementById("theme"));
requestAnimationFrame(() => setTimeout(() => import("./page.js")));
