// For functions that may publish nothing: see `publish` in infra/manifest.ts. Every name of the client it stands for is there.
function refuse() {
  throw new Error("this function publishes no events: allow it in infra/manifest.ts");
}
module.exports = new Proxy({}, { get: () => refuse });
