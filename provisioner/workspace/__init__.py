"""The workspace: the folder that contains provisioner.yaml, with its settings, files and secrets.

``settings`` reads provisioner.yaml and the manifests. ``files`` finds, reads and writes files safely.
``secrets`` reads secrets from the environment variables and files that provisioner.yaml names.

To add a setting, add it to the model in :mod:`provisioner.manifest.models`.
"""
