"""The demo page of a model: a static Space, or a folder for any web server."""
