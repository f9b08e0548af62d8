"""Several ways to prove who asks, tried one after the other: the first that knows the token decides.

A verifier that recognises a token as its own and finds it bad ends the search, so that the caller hears the reason.
"""

from lablet_gateway.identity import Principal, TokenVerifier


class Chain:
    """The verifiers in the order in which they are asked; the cheap ones first."""

    def __init__(self, *verifiers: TokenVerifier) -> None:
        self._verifiers = verifiers

    async def verify(self, token: str) -> Principal | None:
        for verifier in self._verifiers:
            principal = await verifier.verify(token)
            if principal is not None:
                return principal
        return None
