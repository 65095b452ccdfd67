// Bundles the page into the package of the service. With --check, compares the result with the committed files instead.

import { build } from "esbuild";
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { basename, join } from "node:path";

const here = fileURLToPath(new URL(".", import.meta.url));
const target = join(here, "../service/wholetrack/api/page");
const licences = {
  "wavesurfer.js": "LICENSE",
  uplot: "LICENSE",
  "@fontsource-variable/instrument-sans": "LICENSE",
  "@fontsource/instrument-serif": "LICENSE",
};

const bundled = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.ts", recorder: "src/recorder.worklet.ts" },
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  loader: { ".woff2": "file", ".woff": "empty" },
  entryNames: "[name]-[hash]",
  assetNames: "[name]-[hash]",
  legalComments: "none",
  outdir: target,
  write: false,
});

const files = new Map();
for (const { path, contents } of bundled.outputFiles) files.set(basename(path), Buffer.from(contents));
const named = (prefix, suffix) => [...files.keys()].find((name) => name.startsWith(prefix) && name.endsWith(suffix));
const html = (await readFile(join(here, "src/index.html"), "utf8"))
  .replace("{{script}}", named("app-", ".js"))
  .replace("{{style}}", named("app-", ".css"))
  .replace("{{recorder}}", named("recorder-", ".js"));
files.set("index.html", Buffer.from(html));
files.set("LICENCES.txt", Buffer.from(await licenceTexts()));
const sums = [...files].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, data]) => `${createHash("sha256").update(data).digest("hex")}  ${name}\n`);
files.set("SHA256SUMS", Buffer.from(sums.join("")));

if (process.argv.includes("--check")) await compare();
else await write();

async function licenceTexts() {
  let text = "The files in this folder contain the following packages.\n";
  for (const [name, file] of Object.entries(licences)) {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
    text += `\n${"=".repeat(80)}\n${name} ${version} (${license})\n${"=".repeat(80)}\n\n${(await readFile(join(folder, file), "utf8")).trim()}\n`;
  }
  return text;
}

async function write() {
  await rm(target, { recursive: true, force: true });
  await mkdir(target, { recursive: true });
  for (const [name, data] of files) await writeFile(join(target, name), data);
  for (const [name, data] of files) console.log(`${String(data.length).padStart(8)}  ${name}`);
}

async function compare() {
  const committed = (await readdir(target)).sort();
  const same = JSON.stringify(committed) === JSON.stringify([...files.keys()].sort());
  const differing = same ? [] : ["the list of files"];
  for (const [name, data] of files) if (same && !data.equals(await readFile(join(target, name)))) differing.push(name);
  if (differing.length) {
    console.error(`the committed page is not what page/ builds: ${differing.join(", ")}; run make page`);
    process.exit(1);
  }
  console.log("the committed page is up to date");
}
