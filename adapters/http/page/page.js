// Shows the OpenAPI document that lies beside this page, and sends requests as it says.
//
// What comes from the document or from an answer gets into the page as text alone. The token
// is in its field and nowhere else.

const JSON_BODY = "application/json";
const MULTIPART = "multipart/form-data";
const SHOWN = 200_000; // characters of an answer's body

const token = document.getElementById("token");

/** An element with properties, and children that are elements or text. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name === "for") made.htmlFor = value;
    else if (name.startsWith("aria-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children); // text becomes a text node
  return made;
}

class Api {
  constructor(document) {
    this.document = document;
  }

  /** What a reference leads to; anything else is itself. */
  resolve(part) {
    let found = part;
    while (found?.$ref) {
      found = found.$ref
        .slice(2)
        .split("/")
        .reduce((place, step) => place[step.replaceAll("~1", "/").replaceAll("~0", "~")], this.document);
    }
    return found;
  }

  /** A schema without references. */
  whole(part) {
    const resolved = this.resolve(part);
    if (Array.isArray(resolved)) return resolved.map((inner) => this.whole(inner));
    if (resolved === null || typeof resolved !== "object") return resolved;
    return Object.fromEntries(
      Object.entries(resolved).map(([name, inner]) => [name, this.whole(inner)]),
    );
  }

  operations(tag) {
    const found = [];
    for (const [path, methods] of Object.entries(this.document.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (operation.tags?.includes(tag)) found.push({ path, method: method.toUpperCase(), ...operation });
      }
    }
    return found;
  }
}

function field(id, name, note, required, control) {
  control.id = id;
  const label = element("label", { for: id }, name, " ");
  if (required) label.append(element("small", {}, "required"));
  const shown = element("div", { class: "field" }, label, control);
  if (note) {
    const noteId = `${id}-note`;
    control.setAttribute("aria-describedby", noteId);
    shown.append(element("p", { class: "note", id: noteId }, note));
  }
  return shown;
}

function describe(schema) {
  const told = [];
  if (schema.enum) told.push(`one of ${schema.enum.join(", ")}`);
  if (schema.minimum !== undefined && schema.maximum !== undefined) {
    told.push(`${schema.minimum} to ${schema.maximum}`);
  }
  if (schema.default !== undefined) told.push(`${schema.default} by default`);
  return told.length ? ` (${told.join("; ")})` : "";
}

/** The fields of an operation's parameters, and what is in them. */
class Parameters {
  constructor(api, operation) {
    this.inputs = [];
    this.shown = [];
    for (const part of operation.parameters ?? []) {
      const parameter = api.resolve(part);
      const control = parameter.schema.enum
        ? element("select", {}, element("option", { value: "" }, ""),
            ...parameter.schema.enum.map((value) => element("option", { value }, value)))
        : element("input", {
            type: "text", required: Boolean(parameter.required), spellcheck: false,
            placeholder: parameter.schema.examples?.[0] ?? "",
          });
      this.inputs.push([parameter, control]);
      this.shown.push(
        field(`${operation.operationId}-${parameter.name}`, parameter.name,
          `${parameter.description}${describe(parameter.schema)}`, parameter.required, control),
      );
    }
  }

  given(place) {
    return this.inputs
      .filter(([parameter, control]) => parameter.in === place && control.value !== "")
      .map(([parameter, control]) => [parameter.name, control.value]);
  }

  target(path) {
    const parts = Object.fromEntries(this.given("path"));
    const filled = path.replace(/\{(\w+)\}/g, (_, name) => encodeURIComponent(parts[name] ?? ""));
    const query = new URLSearchParams(this.given("query")).toString();
    return query ? `${filled}?${query}` : filled;
  }
}

/** The fields of an operation's body, in one of its forms. */
class Body {
  constructor(api, operation) {
    this.shown = [];
    this.type = null;
    const described = api.resolve(operation.requestBody);
    if (!described) return;
    const types = Object.keys(described.content);
    const place = element("div");
    const choose = (type) => {
      this.type = type;
      place.replaceChildren(...this.#fields(api, operation.operationId, described.content[type]));
    };
    if (described.description) this.shown.push(element("p", {}, described.description));
    if (types.length > 1) {
      const choice = element("select", {}, ...types.map((type) => element("option", { value: type }, type)));
      choice.addEventListener("change", () => choose(choice.value));
      this.shown.push(field(`${operation.operationId}-form`, "form", "", false, choice));
    }
    this.shown.push(place);
    choose(types[0]);
  }

  #fields(api, id, content) {
    const schema = api.whole(content.schema);
    const shape = element("details", {}, element("summary", {}, "Schema"),
      element("pre", {}, JSON.stringify(schema, null, 2)));
    if (this.type === JSON_BODY) {
      this.text = element("textarea", { spellcheck: false });
      const examples = Object.entries(content.examples ?? {});
      const write = (name) => {
        this.text.value = JSON.stringify(content.examples[name].value, null, 2);
      };
      const shown = [];
      if (examples.length > 1) {
        const choice = element("select", {}, ...examples.map(([name]) => element("option", { value: name }, name)));
        choice.addEventListener("change", () => write(choice.value));
        shown.push(field(`${id}-example`, "example", "", false, choice));
      }
      if (examples.length) write(examples[0][0]);
      return [...shown, field(`${id}-body`, "body", "", false, this.text), shape];
    }
    this.inputs = Object.entries(schema.properties).map(([name, property]) => [
      name,
      element("input", { type: property.format === "binary" ? "file" : "text", spellcheck: false }),
      property,
    ]);
    return [
      ...this.inputs.map(([name, control, property]) =>
        field(`${id}-body-${name}`, name, property.description, schema.required?.includes(name), control)),
      shape,
    ];
  }

  /** What fetch sends, and the arguments that curl needs for the same. */
  made() {
    if (this.type === null) return { curl: [] };
    if (this.type === JSON_BODY) {
      return {
        body: this.text.value,
        headers: [["Content-Type", JSON_BODY]],
        curl: ["--data-raw", quoted(this.text.value)],
      };
    }
    const curl = [];
    const form = this.type === MULTIPART ? new FormData() : new URLSearchParams();
    for (const [name, control] of this.inputs) {
      if (control.type === "file") {
        if (!control.files.length) continue;
        form.append(name, control.files[0]);
        curl.push("-F", quoted(`${name}=@${control.files[0].name}`));
      } else if (control.value !== "") {
        form.append(name, control.value);
        curl.push("--data-urlencode", quoted(`${name}=${control.value}`));
      }
    }
    return { body: form, curl };
  }
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function curlLine(method, url, headers, body, authorized) {
  const parts = ["curl", "-i", ...(method === "GET" ? [] : ["-X", method]), quoted(url)];
  if (authorized) parts.push("-H", '"Authorization: bearer $TOKEN"');
  for (const [name, value] of headers) parts.push("-H", quoted(`${name}: ${value}`));
  return [...parts, ...body.curl].join(" ");
}

function isText(type) {
  return /json|^text\/|xml|urlencoded/.test(type);
}

async function shownBody(response) {
  const type = response.headers.get("Content-Type") ?? "";
  const blob = await response.blob();
  if (blob.size === 0) return element("p", {}, "The body is empty.");
  if (isText(type)) {
    let text = await blob.text();
    if (text.length > SHOWN) text = `${text.slice(0, SHOWN)}\n… (${text.length} characters in all)`;
    return element("pre", { class: "body", tabIndex: 0 }, text);
  }
  const save = element("a", { href: URL.createObjectURL(blob), download: "bits" }, "Save it");
  return element("p", {}, `${blob.size} bytes of ${type || "no type"}. `, save);
}

async function shownAnswer(response, milliseconds) {
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  return element(
    "div",
    { class: response.status < 400 ? "answer" : "answer refused" },
    element("p", { class: "status" }, `${response.status} ${response.statusText}`,
      element("small", {}, ` in ${Math.round(milliseconds)} ms`)),
    element("h3", {}, "Headers"),
    element("pre", { class: "headers", tabIndex: 0 }, headers),
    element("h3", {}, "Body"),
    await shownBody(response),
  );
}

function tryForm(api, operation) {
  const parameters = new Parameters(api, operation);
  const body = new Body(api, operation);
  const open = (operation.security ?? []).length === 0;
  const button = element("button", { type: "submit" }, "Send");
  const line = element("pre", { class: "curl", tabIndex: 0 });
  const place = element("div", { class: "outcome", "aria-live": "polite" });

  function request() {
    const url = new URL(parameters.target(operation.path), location.origin);
    const made = body.made();
    const headers = [...parameters.given("header"), ...(made.headers ?? [])];
    return { url, made, headers, authorized: !open && token.value.trim() !== "" };
  }

  function showLine() {
    const { url, made, headers } = request();
    line.textContent = curlLine(operation.method, url.href, headers, made, !open);
  }

  async function send() {
    const { url, made, headers, authorized } = request();
    if (authorized) headers.push(["Authorization", `bearer ${token.value.trim()}`]);
    button.disabled = true;
    const began = performance.now();
    try {
      const response = await fetch(url, {
        method: operation.method, headers, body: made.body, cache: "no-store",
        credentials: "omit", referrerPolicy: "no-referrer",
      });
      place.replaceChildren(await shownAnswer(response, performance.now() - began));
    } catch (error) {
      place.replaceChildren(element("div", { class: "answer refused" },
        element("p", { class: "status" }, "No answer"),
        element("p", {}, `${error.message}. The service can't be reached, or the answer leads to ` +
          "another host, where this page may not go: the curl line may.")));
    } finally {
      button.disabled = false;
    }
  }

  const form = element("form", { noValidate: false },
    ...(parameters.shown.length ? [element("h3", {}, "Parameters"), ...parameters.shown] : []),
    ...(body.shown.length ? [element("h3", {}, "Body"), ...body.shown] : []),
    button, element("h3", {}, "The same with curl"), line, place);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  form.addEventListener("input", showLine);
  form.addEventListener("change", showLine);
  showLine();
  return form;
}

function answers(api, operation) {
  const rows = Object.entries(operation.responses).map(([status, part]) => {
    const response = api.resolve(part);
    const told = element("td", {}, response.description);
    for (const [type, content] of Object.entries(response.content ?? {})) {
      const examples = Object.values(content.examples ?? {}).map(({ value }) =>
        element("li", {}, `${value.code} ${value.error_code}: ${value.description}`));
      if (examples.length) told.append(element("ul", {}, ...examples));
      else {
        told.append(element("details", {}, element("summary", {}, type),
          element("pre", {}, JSON.stringify(api.whole(content.schema), null, 2))));
      }
    }
    return element("tr", {}, element("td", {}, status), told);
  });
  return element("details", {}, element("summary", {}, "What it may answer"),
    element("table", {}, element("tbody", {}, ...rows)));
}

function shownOperation(api, operation) {
  const shown = element("details", { class: "operation", id: operation.operationId },
    element("summary", {},
      element("span", { class: `method ${operation.method.toLowerCase()}` }, operation.method),
      element("span", { class: "path" }, operation.path),
      element("span", { class: "said" }, operation.summary)));
  // made when it is first opened: most are not
  shown.addEventListener("toggle", () => {
    if (shown.open && shown.childElementCount === 1) {
      shown.append(element("div", { class: "inside" },
        element("p", {}, operation.description.replaceAll("`", "")),
        tryForm(api, operation), answers(api, operation)));
    }
  });
  return shown;
}

function show(api) {
  const { info, tags } = api.document;
  document.getElementById("version").textContent = info.version;
  document.getElementById("about").append(
    ...info.description.split("\n\n").map((text) => element("p", {}, text.replaceAll("`", ""))),
    element("p", {}, element("a", { href: "openapi.json" }, "The document itself"), " (OpenAPI 3.1)"),
  );
  for (const tag of tags) {
    const operations = api.operations(tag.name);
    document.getElementById("operations").append(
      element("section", { "aria-label": tag.name }, element("h2", {}, tag.name),
        element("p", {}, tag.description), ...operations.map((one) => shownOperation(api, one))));
    document.getElementById("contents").append(element("h2", {}, tag.name),
      element("ul", {}, ...operations.map((one) =>
        element("li", {}, element("a", { href: `#${one.operationId}` }, one.summary)))));
  }
}

function openNamed() {
  const named = document.getElementById(location.hash.slice(1));
  if (named?.classList.contains("operation")) {
    named.open = true;
    named.querySelector("summary").focus();
  }
}

try {
  const response = await fetch("openapi.json", { credentials: "omit" });
  if (!response.ok) throw new Error(`openapi.json is answered with ${response.status}`);
  show(new Api(await response.json()));
  document.getElementById("loading").remove();
  addEventListener("hashchange", openNamed);
  openNamed();
} catch (error) {
  document.getElementById("loading").textContent = `The document can't be read: ${error.message}`;
}
