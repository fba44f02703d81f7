"""A run in the browser, on this machine alone: `workbench serve RUN`. The values behind the pages are plain functions."""
