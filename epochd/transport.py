"""One request to the service: address, key, repetition of what may be repeated, problems as errors.

A request is repeated when that is safe: reading, or writing that the service knows to be the same (an
`Idempotency-Key`, or an action that is a no-op the second time). What is repeated: lost connections, time-outs, 429
and 503. A refused connection counts only once the service has been seen: at first contact it means a wrong address,
and saying so at once helps more than patience.
"""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

import httpx2
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_exponential_jitter

from epochd.errors import ServiceAway, TryLater, refusal

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
"""For an answer that was not asked to wait. Preflight of a large model takes up to ten."""
MAX_PAUSE_SECONDS = 5.0
"""Between two repetitions, unless the service's `Retry-After` asks for more."""

_backoff = wait_exponential_jitter(multiplier=0.2, max=MAX_PAUSE_SECONDS, jitter=0.2)


class Transport:
    """A connection pool to one service.

    Args:
        url: the service's address, such as `http://127.0.0.1:8000`.
        key: the API key, `epk_…`; none for a service that has no keys.
        retry_seconds: for so long a safe request is repeated.
    """

    def __init__(self, url: str, key: str | None, *, retry_seconds: float) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # Proxies of the environment are for the world outside: they rarely reach a service on loopback.
        trust_env = httpx2.URL(url).host not in {"127.0.0.1", "localhost", "::1"}
        self.url = url
        self.retry_seconds = retry_seconds
        self._pool = httpx2.Client(base_url=url, headers=headers, timeout=ANSWER_SECONDS, trust_env=trust_env)
        self._has_answered = False

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        is_safe: bool | None = None,
        wait_seconds: float = 0.0,
        headers: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> httpx2.Response:
        """Send one request and return its answer below 400.

        Args:
            method: `GET`, `POST`, …
            path: below the service's address.
            is_safe: whether it may be repeated; none: whether it is a GET.
            wait_seconds: how long the service may hold the answer back (`Prefer: wait`).
            headers: further headers.
            kwargs: `json`, `content`, `params`, `files` as httpx2 takes them.

        Raises:
            RequestRefused: the answer was 4xx or 5xx.
            ServiceAway: there was no answer.
        """
        sent = dict(headers or {})
        if wait_seconds:
            sent["Prefer"] = f"wait={wait_seconds:g}"
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=ANSWER_SECONDS + wait_seconds)

        def send() -> httpx2.Response:
            with self._named_failures():
                answer = self._pool.request(method, path, headers=sent, timeout=timeout, **kwargs)
            self._has_answered = True
            return _checked(answer)

        if is_safe is None:
            is_safe = method == "GET"
        return self._repeating()(send) if is_safe else send()

    @contextmanager
    def stream(self, path: str) -> Generator[httpx2.Response]:
        """Open a GET whose body is read piece by piece.

        Raises:
            RequestRefused: the answer was 4xx or 5xx.
            ServiceAway: there was no answer, or it broke off.
        """
        with self._named_failures(), self._pool.stream("GET", path) as answer:
            if answer.is_error:
                answer.read()
            yield _checked(answer)

    @contextmanager
    def _named_failures(self) -> Generator[None]:
        try:
            yield
        except httpx2.TransportError as failure:
            hint = "" if self._has_answered else "; `epochd up` starts one, --url or EPOCHD_URL names another"
            raise ServiceAway(f"no epochd service answers at {self.url} ({_words(failure)}){hint}") from failure
        except httpx2.InvalidURL as failure:
            raise ServiceAway(f"{self.url!r} is not an address: {failure}") from failure

    def _repeating(self) -> Retrying:
        return Retrying(
            retry=retry_if_exception(self._is_passing),
            stop=stop_after_delay(self.retry_seconds),
            wait=_pause,
            reraise=True,
        )

    def _is_passing(self, failure: BaseException) -> bool:
        if isinstance(failure, TryLater):
            return True
        if not isinstance(failure, ServiceAway) or isinstance(failure.__cause__, httpx2.InvalidURL):
            return False
        return self._has_answered or not isinstance(failure.__cause__, httpx2.ConnectError | httpx2.UnsupportedProtocol)


def _words(failure: Exception) -> str:
    return str(failure) or type(failure).__name__


def _checked(answer: httpx2.Response) -> httpx2.Response:
    """Return the answer, or raise what its problem says."""
    if not answer.is_error:
        return answer
    try:
        body = answer.json()
    except (JSONDecodeError, UnicodeDecodeError):
        body = {"title": answer.reason_phrase, "detail": f"HTTP {answer.status_code}: {answer.text[:200]}"}
    failure = refusal(answer.status_code, body)
    if isinstance(failure, TryLater):
        failure.retry_after_seconds = _retry_after(answer)
    raise failure


def _retry_after(answer: httpx2.Response) -> float | None:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _pause(state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    asked = failure.retry_after_seconds if isinstance(failure, TryLater) else None
    return asked if asked is not None else _backoff(state)
