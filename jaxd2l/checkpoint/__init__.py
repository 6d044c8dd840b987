"""Checkpoints: one pickle-free file each, in the safetensors format, never half written."""

from jaxd2l.checkpoint.file import load as load
from jaxd2l.checkpoint.file import load_flat as load_flat
from jaxd2l.checkpoint.file import load_network as load_network
from jaxd2l.checkpoint.file import read_header as read_header
from jaxd2l.checkpoint.file import read_metadata as read_metadata
from jaxd2l.checkpoint.file import save as save
from jaxd2l.checkpoint.file import verify as verify
from jaxd2l.checkpoint.folder import drop_after as drop_after
from jaxd2l.checkpoint.folder import latest as latest
from jaxd2l.checkpoint.folder import save_step as save_step
from jaxd2l.checkpoint.folder import step_path as step_path
from jaxd2l.checkpoint.folder import steps as steps
from jaxd2l.checkpoint.folder import truncate_jsonl as truncate_jsonl
