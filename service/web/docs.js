/** Shows the API's description with Swagger UI, a classic script that leaves a global. */

/** @type {any} */ (globalThis).SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  // Otherwise Swagger's own server would be asked what it thinks of the description.
  validatorUrl: null,
});
