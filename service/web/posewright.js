/** The browser client's address for pages: this file is served at /posewright.js, the modules at /web/browser/. */

export * from "./web/browser/index.js";
