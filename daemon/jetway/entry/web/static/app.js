// What the pages do beyond links and forms. Everything can be read and sent without it.

import "./times.js";
import "./dialogs.js";
import "./search.js";
import "./select.js";
import "./tree.js";
import { follow } from "./live.js";

document.querySelector("main [aria-invalid]")?.focus();

const { follow: about } = document.getElementById("main").dataset;
if (about) follow(about);
