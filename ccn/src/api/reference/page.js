
"use strict";

// Most characters of an answer that are shown, and most frames of a websocket.
const MAX_SHOWN = 200000;
const MAX_FRAMES = 100;
// Deepest nesting of a shape that is written out.
const MAX_DEPTH = 8;

/** An element with a class and children; texts are texts, never markup. */
function make(name, className, ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** A sentence; what is between backticks is code. */
function prose(name, sentence) {
  const parts = sentence.split("`").map((part, place) => (place % 2 === 0 ? part : make("code", "", part)));
  return make(name, "", ...parts);
}

/** The document that the page shows. */
let reference = { components: { schemas: {} } };

function resolved(schema) {
  const name = schema && schema.$ref ? schema.$ref.split("/").pop() : null;
  return name ? reference.components.schemas[name] || {} : schema || {};
}

/** What a value can be, in words. */
function kindOf(schema) {
  const parts = [];
  const kinds = [].concat(schema.type || []);
  if (schema.$ref) parts.push(schema.$ref.split("/").pop());
  else if (schema.enum) parts.push(schema.enum.map((word) => JSON.stringify(word)).join(" | "));
  else if (schema.anyOf) parts.push(schema.anyOf.map(kindOf).join(" | "));
  else if (kinds.includes("array")) parts.push("list of " + kindOf(schema.items || {}));
  else parts.push(kinds.join(" | ") || "any value");
  if (schema.minimum !== undefined) parts.push("from " + schema.minimum);
  // Larger numbers are no bounds that anybody meets, and are not exact here.
  if (schema.maximum !== undefined && schema.maximum < Number.MAX_SAFE_INTEGER) parts.push("to " + schema.maximum);
  if (schema.maxItems !== undefined) parts.push("at most " + schema.maxItems);
  if (schema.maxLength !== undefined) parts.push("at most " + schema.maxLength + " characters");
  if (schema.default !== undefined) parts.push("default " + JSON.stringify(schema.default));
  return parts.join("\n");
}

/** A shape as text, indented. */
function written(given, indent, depth) {
  const schema = resolved(given);
  if (depth > MAX_DEPTH) return "…";
  const inner = indent + "  ";
  if (schema.anyOf) {
    return schema.anyOf.map((one) => written(one, indent, depth + 1)).join("\n" + indent + "or ");
  }
  const kinds = [].concat(schema.type || []);
  const orNull = kinds.includes("null") ? " or null" : "";
  if (schema.properties) {
    const required = schema.required || [];
    const lines = Object.entries(schema.properties).map(([name, member]) => {
      const mark = required.includes(name) ? "" : "?";
      const about = member.description ? "  // " + member.description : "";
      return inner + name + mark + ": " + written(member, inner, depth + 1) + about;
    });
    if (schema.additionalProperties !== false) lines.push(inner + "…");
    return "{\n" + lines.join("\n") + "\n" + indent + "}" + orNull;
  }
  if (typeof schema.additionalProperties === "object") {
    return "{ [name]: " + written(schema.additionalProperties, indent, depth + 1) + " }" + orNull;
  }
  if (kinds.includes("array")) return "[ " + written(schema.items, indent, depth + 1) + " ]" + orNull;
  return kindOf({ type: schema.type, enum: schema.enum });
}

/** A body to begin with: every member, empty. */
function sample(given, depth) {
  const schema = resolved(given);
  const kind = [].concat(schema.type || [])[0];
  if (schema.enum) return schema.enum[0];
  if (schema.anyOf) return sample(schema.anyOf[0], depth + 1);
  if (schema.properties && depth < MAX_DEPTH) {
    const members = Object.entries(schema.properties);
    return Object.fromEntries(members.map(([name, member]) => [name, sample(member, depth + 1)]));
  }
  return { object: {}, array: [], string: "", number: 0, integer: 0, boolean: false }[kind] ?? null;
}

function parameterRow(parameter) {
  const input = make("input");
  input.dataset.name = parameter.name;
  input.dataset.place = parameter.in;
  input.setAttribute("aria-label", parameter.name);
  if (parameter.required) input.required = true;
  const name = make("td", "", make("code", "", parameter.name), make("br"), parameter.in);
  const row = make("tr", "", name, make("td", "kind", kindOf(parameter.schema || {})));
  row.append(prose("td", parameter.description || ""), make("td", "", input));
  return row;
}

/** The URL of a request, with what was written into the form. */
function address(path, form) {
  const query = new URLSearchParams();
  let url = path;
  for (const input of form.querySelectorAll("input[data-place]")) {
    const { name, place } = input.dataset;
    if (place === "path") url = url.replace("{" + name + "}", encodeURIComponent(input.value));
    else if (place === "query" && input.value !== "") query.append(name, input.value);
  }
  const text = query.toString();
  return text ? url + "?" + text : url;
}

/** What the form says beside the address. */
function options(method, form) {
  const request = { method: method.toUpperCase(), headers: {} };
  for (const input of form.querySelectorAll("input[data-place=header]")) {
    if (input.value !== "") request.headers[input.dataset.name] = input.value;
  }
  const word = document.getElementById("word").value;
  if (form.dataset.operator && word) request.headers.Authorization = "Bearer " + word;
  const text = form.querySelector("textarea[data-body=json]");
  const parts = form.querySelectorAll("[data-part]");
  if (text) {
    request.headers["Content-Type"] = "application/json";
    request.body = text.value;
  } else if (parts.length > 0) {
    request.body = new FormData();
    for (const part of parts) {
      const value = part.files ? part.files[0] : part.value;
      if (value) request.body.append(part.dataset.part, value);
    }
  }
  return request;
}

function shown(text, kind) {
  let whole = text;
  if (kind.startsWith("application/json")) {
    try {
      whole = JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      // It is shown as it came.
    }
  }
  return whole.length > MAX_SHOWN ? whole.slice(0, MAX_SHOWN) + "\n…" : whole;
}

async function send(method, path, form, answer) {
  const url = address(path, form);
  const began = performance.now();
  try {
    const response = await fetch(url, options(method, form));
    const kind = response.headers.get("content-type") || "";
    const isText = /json|text|xml/.test(kind);
    const body = await response.blob();
    const text = isText ? shown(await body.text(), kind) : body.size + " bytes";
    const line = response.status + " · " + Math.round(performance.now() - began) + " ms · " + kind;
    const status = make("p", response.ok ? "status" : "status failed", line);
    answer.replaceChildren(make("p", "", make("code", "", method.toUpperCase() + " " + url)), status, make("pre", "body", text));
  } catch (error) {
    answer.replaceChildren(make("p", "status failed", "No answer: " + error.message));
  }
}

function listen(path, form, answer, button) {
  const url = new URL(address(path, form), location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const socket = new WebSocket(url);
  const frames = make("pre", "body");
  const status = make("p", "status", "connecting");
  answer.replaceChildren(status, frames);
  button.textContent = "Disconnect";
  button.onclick = () => socket.close();
  socket.onopen = () => (status.textContent = "connected");
  socket.onmessage = (event) => {
    frames.prepend(shown(event.data, "application/json") + "\n\n");
    while (frames.childNodes.length > MAX_FRAMES) frames.lastChild.remove();
  };
  socket.onclose = (event) => {
    status.textContent = "closed " + event.code + " " + event.reason;
    button.textContent = "Connect";
    button.onclick = null;
  };
}

/** What the body of a request can be written into. */
function bodyFields(body) {
  const forms = Object.entries(body.content || {});
  const fields = [make("h3", "", "Body")];
  const json = forms.find(([form]) => form === "application/json");
  const parts = forms.find(([form]) => form === "multipart/form-data");
  if (json) {
    const text = make("textarea");
    text.dataset.body = "json";
    text.setAttribute("aria-label", "Body");
    text.spellcheck = false;
    text.value = JSON.stringify(sample(json[1].schema, 0), null, 2);
    fields.push(text);
  } else if (parts) {
    const table = make("table");
    for (const [name, member] of Object.entries(resolved(parts[1].schema).properties || {})) {
      const input = make(name === "file" ? "input" : "textarea");
      if (name === "file") input.type = "file";
      input.dataset.part = name;
      input.setAttribute("aria-label", name);
      const about = prose("td", member.description || "");
      table.append(make("tr", "", make("td", "", make("code", "", name)), about, make("td", "", input)));
    }
    fields.push(table);
  }
  for (const [form, { schema }] of forms) {
    fields.push(make("p", "", form), make("pre", "", written(schema, "", 0)));
  }
  return fields;
}

function answers(responses) {
  const table = make("table");
  for (const [status, response] of Object.entries(responses)) {
    const cell = prose("td", response.description || "");
    for (const [form, { schema }] of Object.entries(response.content || {})) {
      const isError = schema && schema.$ref && schema.$ref.endsWith("/Error");
      cell.append(make("p", "", form + (isError ? ", an error" : "")));
      if (!isError) cell.append(make("pre", "", written(schema, "", 0)));
    }
    table.append(make("tr", "", make("td", "", make("code", "", status)), cell));
  }
  return table;
}

/** All of an operation but its heading, made when it is opened. */
function inside(method, path, operation) {
  const form = make("form");
  if (operation.security) form.dataset.operator = "yes";
  if (operation.description) form.append(prose("p", operation.description));
  if (operation.security) form.append(make("p", "", "Needs the word of the operator."));
  const parameters = operation.parameters || [];
  if (parameters.length > 0) {
    form.append(make("h3", "", "Parameters"), make("table", "", ...parameters.map(parameterRow)));
  }
  if (operation.requestBody) form.append(...bodyFields(operation.requestBody));
  const isSocket = Boolean(operation.responses["101"]);
  const button = make("button", "send", isSocket ? "Connect" : "Send");
  const answer = make("div", "answer");
  answer.setAttribute("aria-live", "polite");
  form.append(make("p", "", button), answer);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!isSocket) send(method, path, form, answer);
    else if (!button.onclick) listen(path, form, answer, button);
  });
  return make("div", "inside", form, make("h3", "", "Answers"), answers(operation.responses));
}

function entry(method, path, operation) {
  const words = operation.summary || "";
  const summary = make("summary", "", make("span", "method " + method, method), make("span", "path", path), make("span", "words", words));
  const details = make("details", "operation", summary);
  details.id = operation.operationId || method + path;
  details.dataset.words = [method, path, words, operation.description || ""].join(" ").toLowerCase();
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) details.append(inside(method, path, operation));
  });
  return details;
}

function show() {
  document.getElementById("title").textContent = reference.info.title + " " + reference.info.version;
  document.getElementById("about").textContent = reference.info.description;
  const found = new Map(reference.tags.map((tag) => [tag.name, []]));
  for (const [path, methods] of Object.entries(reference.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      found.get(operation.tags[0])?.push(entry(method, path, operation));
    }
  }
  const sections = reference.tags.filter((tag) => found.get(tag.name).length > 0).map((tag, place) => {
    const link = make("a", "", tag.name);
    link.href = "#group-" + place;
    document.getElementById("groups").append(link);
    const heading = make("h2", "", tag.name);
    heading.id = "group-" + place;
    return make("section", "", heading, make("p", "", tag.description), ...found.get(tag.name));
  });
  document.getElementById("operations").replaceChildren(...sections);
}

function filter(words) {
  for (const section of document.querySelectorAll("section")) {
    for (const details of section.querySelectorAll("details")) {
      details.hidden = !words.every((word) => details.dataset.words.includes(word));
    }
    section.hidden = !section.querySelector("details:not([hidden])");
  }
}

function openLinked() {
  const linked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (linked && linked.tagName === "DETAILS") {
    linked.open = true;
    linked.scrollIntoView();
  }
}

async function start() {
  try {
    const response = await fetch("/api/v0/openapi.json");
    if (!response.ok) throw new Error("status " + response.status);
    reference = await response.json();
    show();
    document.body.dataset.ready = "yes";
    openLinked();
  } catch (error) {
    document.getElementById("operations").replaceChildren(make("p", "failed", "The document cannot be read: " + error.message));
  }
}

document.getElementById("filter").addEventListener("input", (event) => {
  filter(event.target.value.toLowerCase().split(/\s+/).filter(Boolean));
});
window.addEventListener("hashchange", openLinked);
start();
