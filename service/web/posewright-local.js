/** Local mode's address for pages: this file is served at /posewright-local.js, the modules at /web/browser/local/. */

export * from "./web/browser/local/index.js";
