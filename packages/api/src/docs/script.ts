/** Runs in the reader's browser. Everything shown is set as text, never as HTML. */
export const script = `
"use strict";
const $ = (id) => document.getElementById(id);
const el = (tag, props, ...children) => {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children.filter((child) => child !== undefined && child !== ""));
  return node;
};
// Backticks are the only mark-up of the descriptions.
const words = (text) => (text || "").split(/(\`[^\`]+\`)/).map((part) =>
  part.startsWith("\`") && part.length > 1 ? el("code", { textContent: part.slice(1, -1) }) : part);

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = (name) => { root.dataset.theme = name; };
theme(localStorage.getItem("waggle.theme") || (dark.matches ? "dark" : "light"));
$("theme").onclick = () => {
  theme(root.dataset.theme === "dark" ? "light" : "dark");
  localStorage.setItem("waggle.theme", root.dataset.theme);
};
$("key").value = sessionStorage.getItem("waggle.key") || "";
$("key").oninput = () => sessionStorage.setItem("waggle.key", $("key").value);

let spec;
const resolve = (schema) => {
  for (let i = 0; schema && schema.$ref && i < 20; i++)
    schema = schema.$ref.slice(2).split("/").reduce((at, part) => at && at[part], spec);
  return schema || {};
};
const nameOf = (schema) => schema.$ref ? schema.$ref.split("/").pop() : undefined;

function typeOf(schema, depth = 0) {
  const name = nameOf(schema);
  if (name) return name;
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const union = schema.anyOf || schema.oneOf;
  if (union) return depth > 2 ? "…" : union.map((one) => typeOf(one, depth + 1)).join(" | ");
  if (schema.type === "array") return "list of " + typeOf(schema.items || {}, depth + 1);
  if (schema.type === "object" && schema.additionalProperties && !schema.properties)
    return "map of " + typeOf(schema.additionalProperties, depth + 1);
  return schema.type || "any JSON";
}
function limitsOf(schema) {
  const out = [];
  const both = (low, high, unit) => {
    if (low !== undefined && high !== undefined) out.push(low + "–" + high + unit);
    else if (low !== undefined) out.push("at least " + low + unit);
    else if (high !== undefined) out.push("at most " + high + unit);
  };
  const safe = (value) => Math.abs(value) >= Number.MAX_SAFE_INTEGER ? undefined : value;
  both(safe(schema.minimum), safe(schema.maximum), "");
  both(schema.minLength, schema.maxLength, " characters");
  both(schema.minItems, schema.maxItems, " entries");
  if (schema.default !== undefined) out.push("default " + JSON.stringify(schema.default));
  if (schema.format) out.push(schema.format);
  return out.join(", ");
}
function example(schema, depth = 0) {
  const plain = resolve(schema);
  if (plain.default !== undefined) return plain.default;
  if (plain.const !== undefined) return plain.const;
  if (plain.enum) return plain.enum[0];
  const union = plain.anyOf || plain.oneOf;
  if (union) return example(union[0], depth + 1);
  if (plain.type === "array") return depth > 3 || !(plain.minItems > 0) ? [] : [example(plain.items || {}, depth + 1)];
  if (plain.type === "string") return plain.format === "date-time" ? new Date().toISOString() : "text";
  if (plain.type === "integer" || plain.type === "number") return Math.max(plain.minimum > -1e15 ? plain.minimum : 0, 0) || 0;
  if (plain.type === "boolean") return false;
  if (plain.properties) {
    const value = {};
    for (const name of plain.required || []) value[name] = example(plain.properties[name], depth + 1);
    if (depth === 0 && plain.properties.input && !value.input) value.input = { hello: "world" };
    return value;
  }
  return {};
}
function schemaTable(schema, depth = 0) {
  const plain = resolve(schema);
  if (plain.type === "array" && depth < 4) return schemaTable(plain.items || {}, depth + 1);
  if (!plain.properties) return el("p", {}, el("code", { textContent: typeOf(plain) }), " " + limitsOf(plain));
  const rows = Object.entries(plain.properties).map(([name, member]) => {
    const inner = resolve(member);
    const below = inner.type === "array" ? resolve(inner.items || {}) : inner;
    const cell = el("td", {}, el("code", { textContent: typeOf(member) }), " " + limitsOf(inner), " ", ...words(inner.description));
    if (below.properties && depth < 3) {
      const more = el("details", {}, el("summary", { textContent: "members" }));
      more.addEventListener("toggle", () => { if (more.open && more.children.length === 1) more.append(schemaTable(below, depth + 1)); });
      cell.append(more);
    }
    const needed = (plain.required || []).includes(name);
    return el("tr", {}, el("th", { textContent: name + (needed ? " *" : "") }), cell);
  });
  return el("table", {}, el("tbody", {}, ...rows));
}
const jsonOf = (content) => content && content["application/json"] && content["application/json"].schema;

function card(path, method, operation) {
  const parameters = (operation.parameters || []).map(resolve);
  const inputs = new Map();
  const box = el("details", { className: "call " + method, id: operation.operationId },
    el("summary", {}, el("span", { className: "method", textContent: method.toUpperCase() }),
      el("span", { className: "path", textContent: path }), el("span", { className: "summary", textContent: operation.summary })));
  const fill = () => {
    const body = el("div", { className: "body" });
    if (operation.description) body.append(el("p", {}, ...words(operation.description)));
    const roles = operation["x-roles"] || [];
    body.append(el("p", { className: "roles" }, ...(roles.length ? roles : ["no key needed"]).map((role) => el("span", { textContent: role }))));
    if (parameters.length) {
      const rows = parameters.map((parameter) => {
        const input = el("input", { placeholder: parameter.in, ariaLabel: parameter.name });
        inputs.set(parameter, input);
        return el("tr", {}, el("th", { textContent: parameter.name + (parameter.required ? " *" : "") }),
          el("td", {}, el("code", { textContent: typeOf(parameter.schema) }), " " + limitsOf(resolve(parameter.schema)), " ", ...words(parameter.description)),
          el("td", {}, input));
      });
      body.append(el("h3", { textContent: "Parameters" }), el("table", {}, el("tbody", {}, ...rows)));
    }
    const schema = operation.requestBody && jsonOf(operation.requestBody.content);
    let text;
    if (schema) {
      text = el("textarea", { value: JSON.stringify(example(schema), null, 2), spellcheck: false, ariaLabel: "Body" });
      body.append(el("h3", { textContent: "Body" + (nameOf(schema) ? ": " + nameOf(schema) : "") }), schemaTable(schema), text);
    }
    const out = el("div", { ariaLive: "polite" });
    const send = el("button", { className: "send", type: "button", textContent: "Send" });
    send.onclick = () => call(path, method, operation, inputs, text, send, out);
    body.append(el("p", {}, send), out, el("h3", { textContent: "Answers" }));
    const rows = Object.entries(operation.responses).map(([status, response]) => {
      const answer = jsonOf(response.content);
      const cell = el("td", {}, ...words(response.description));
      if (answer) {
        const more = el("details", {}, el("summary", { textContent: nameOf(answer) || "members" }));
        more.addEventListener("toggle", () => { if (more.open && more.children.length === 1) more.append(schemaTable(answer)); });
        cell.append(more);
      }
      return el("tr", {}, el("th", { textContent: status }), cell);
    });
    body.append(el("table", {}, el("tbody", {}, ...rows)));
    box.append(body);
  };
  box.addEventListener("toggle", () => { if (box.open && box.children.length === 1) fill(); });
  return box;
}

async function call(path, method, operation, inputs, text, send, out) {
  const headers = {};
  const query = new URLSearchParams();
  let url = path;
  for (const [parameter, input] of inputs) {
    if (parameter.in === "path") url = url.replace("{" + parameter.name + "}", encodeURIComponent(input.value));
    else if (input.value !== "" && parameter.in === "query") query.set(parameter.name, input.value);
    else if (input.value !== "") headers[parameter.name] = input.value;
  }
  if ($("key").value && (operation.security || []).length) headers.authorization = "Bearer " + $("key").value.trim();
  if (text) headers["content-type"] = "application/json";
  const target = "." + url + (query.size ? "?" + query : "");
  send.disabled = true;
  const from = performance.now();
  try {
    const response = await fetch(target, { method: method.toUpperCase(), headers, body: text ? text.value : undefined });
    const answer = await response.text();
    let pretty = answer;
    try { pretty = JSON.stringify(JSON.parse(answer), null, 2); } catch {}
    const took = Math.round(performance.now() - from) + " ms · " + (response.headers.get("server-timing") || "") + " · " + (response.headers.get("x-request-id") || "");
    out.replaceChildren(el("p", {}, el("span", { className: response.ok ? "ok" : "bad", textContent: response.status + " " + response.statusText }), " ", el("small", { textContent: took })),
      el("pre", { textContent: pretty || "(empty)" }));
  } catch (error) {
    out.replaceChildren(el("p", { className: "bad", textContent: String(error) }));
  }
  send.disabled = false;
}

fetch("openapi.json").then((response) => response.json()).then((document_) => {
  spec = document_;
  $("version").textContent = spec.info.version;
  $("intro").append(el("h1", { textContent: spec.info.title + " API" }),
    ...spec.info.description.split("\\n\\n").map((part) => el("p", {}, ...words(part))),
    el("p", {}, el("a", { href: "openapi.json", textContent: "openapi.json" })));
  const calls = $("calls");
  calls.replaceChildren();
  for (const { name } of spec.tags) {
    calls.append(el("h2", { className: "tag", textContent: name }));
    $("index").append(el("h2", { textContent: name }));
    for (const [path, methods] of Object.entries(spec.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (!operation.tags.includes(name)) continue;
        calls.append(card(path, method, operation));
        $("index").append(el("a", { href: "#" + operation.operationId, className: method, title: operation.summary },
          el("span", { className: "method", textContent: method.toUpperCase() }), path.replace(/^\\/v1/, "")));
      }
    }
  }
  const show = () => { const target = location.hash && $(location.hash.slice(1)); if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); } };
  addEventListener("hashchange", show);
  show();
}).catch((error) => { $("calls").textContent = "openapi.json could not be read: " + error; });
$("filter").oninput = () => {
  const wanted = $("filter").value.toLowerCase();
  for (const link of $("index").querySelectorAll("a"))
    link.hidden = !(link.textContent + " " + link.title).toLowerCase().includes(wanted);
};
`;
