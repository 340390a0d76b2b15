"""What a client may say: the messages of viser's page, and no others."""

from __future__ import annotations

PASSED = frozenset(
    {
        "CommandTriggerMessage",
        "FileTransferPart",
        "FileTransferPartAck",
        "FileTransferStartUpload",
        "GetRenderResponseMessage",
        "GuiButtonHoldMessage",
        "GuiFormDirtyMessage",
        "GuiFormSubmitMessage",
        "GuiUpdateMessage",
        "LocalStorageGetItemResponseMessage",
        "NotificationUpdateMessage",
        "SceneNodeClickMessage",
        "SceneNodeDragMessage",
        "ScenePointerMessage",
        "TransformControlsDragEndMessage",
        "TransformControlsDragStartMessage",
        "TransformControlsUpdateMessage",
        "ViewerCameraMessage",
    }
)
"""What viser's page says to its server."""
DROPPED = frozenset({"ShareUrlRequest", "ShareUrlDisconnect"})
"""Those would have viser open a tunnel through another party's server."""


def judged(data: bytes) -> str:
    """`pass`, `drop` or `close`."""
    import msgspec

    try:
        plain = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return "close"
    kind = plain.get("type") if isinstance(plain, dict) else None
    if not isinstance(kind, str):
        return "close"
    return "pass" if kind in PASSED else "drop" if kind in DROPPED else "close"
