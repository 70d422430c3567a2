"""What a client is told when its request cannot be answered as it stands."""

from __future__ import annotations


class BadRequest(Exception):
    """The request cannot be answered; the message says what is wrong with it, `status` is HTTP's word for that."""

    status = 400


class UnsupportedMedia(BadRequest):
    """The body is in a form that is not read here."""

    status = 415


class NoAnswer(BadRequest):
    """What the model gives for this input cannot be told in the form that was asked for."""

    status = 422
