"""The routes, by subject: each module has `make_router(explorer)`."""
