"""The workspace is the folder with provisioner.yaml. This package reads the settings, files and secrets.

``settings`` reads provisioner.yaml and the manifests. ``files`` finds, reads and writes files safely.
``secrets`` reads secrets from the environment variables and files that provisioner.yaml names.

To add a setting, add it to the model in :mod:`provisioner.manifest.models`.
"""
