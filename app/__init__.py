"""The server: dialects of HTTP over one engine. Installed as `ref_engine_app`."""
