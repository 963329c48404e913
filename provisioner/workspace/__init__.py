"""The workspace: the folder with provisioner.yaml, its settings, its files and its secrets.

``settings`` reads provisioner.yaml and the manifests, ``files`` finds, reads and writes files safely,
``secrets`` reads secrets from where provisioner.yaml names them.

To add a setting: add it to the model in :mod:`provisioner.manifest.models`.
"""
