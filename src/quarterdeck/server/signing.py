"""The control plane's signing key (ES256): agent cards (JWS, A2A §8.4.2) and push notifications (JWT)."""

from __future__ import annotations

import json
from time import time
from typing import Any

from joserfc import jws, jwt
from joserfc.jwk import ECKey
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from .a2a_tables import signing_keys
from .database import Database


class SigningKey:
    """One key, made once and kept in the database, so that all replicas sign with the same."""

    def __init__(self, key: ECKey) -> None:
        self._key = key
        self.kid = key.thumbprint()

    @classmethod
    async def open(cls, database: Database) -> SigningKey:
        """The database's key; a new one in an empty database."""
        query = select(signing_keys)
        rows = await database.rows(query)
        if not rows:
            fresh = json.dumps(ECKey.generate_key("P-256").as_dict(private=True))
            try:
                async with database.write() as connection:
                    await connection.execute(insert(signing_keys).values(slot=1, private=fresh, created=time()))
            except IntegrityError:
                pass  # another replica was first
            rows = await database.rows(query)
        return cls(ECKey.import_key(json.loads(rows[0]["private"])))

    def jwks(self) -> dict[str, Any]:
        """The public key as a JWK Set."""
        public = self._key.as_dict(private=False)
        return {"keys": [public | {"kid": self.kid, "use": "sig", "alg": "ES256"}]}

    def signature(self, payload: bytes, jku: str) -> dict[str, str]:
        """An AgentCardSignature over a canonical card. ``jku``: where readers find the public key."""
        header = {"alg": "ES256", "typ": "JOSE", "kid": self.kid} | ({"jku": jku} if jku else {})
        protected, _, signature = jws.serialize_compact(header, payload, self._key, algorithms=["ES256"]).split(".")
        return {"protected": protected, "signature": signature}

    def token(self, claims: dict[str, Any]) -> str:
        """A JWT."""
        return jwt.encode({"alg": "ES256", "typ": "JWT", "kid": self.kid}, claims, self._key, algorithms=["ES256"])
