/** Shows the API documentation with Swagger UI, a classic script that defines a global. */

/** @type {any} */ (globalThis).SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  // Disables the call to Swagger's online validator.
  validatorUrl: null,
});
