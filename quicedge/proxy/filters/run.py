"""The way of one exchange through the filters of its route."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any

from quicedge.config.filterlimits import REPLACED_BODY
from quicedge.config.limits import RETRY_AFTER
from quicedge.http.message import Field, Fields, Request, Response
from quicedge.http.semantics import response_has_body
from quicedge.proxy.body import BodyPath, BodyStage
from quicedge.proxy.exchange import Exchange, Origin
from quicedge.proxy.filters.buffer_stage import BufferStage
from quicedge.proxy.filters.held_body import HeldBody
from quicedge.proxy.filters.phases import Phases, describe
from quicedge.proxy.filters.route_filter import RouteFilter
from quicedge.proxy.reply import Reply
from quicedge.proxy.spill import Spill
from quicedge.telemetry.outcomes import Outcome


class _FromOrigin:
    """The origin as the source of a response."""

    __slots__ = ("_exchange",)

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def pause(self) -> None:
        if self._exchange.origin is not None:
            self._exchange.origin.pause()

    def resume(self) -> None:
        if self._exchange.origin is not None:
            self._exchange.origin.resume()


class _ToClient:
    """The client as the sink of a response."""

    __slots__ = ("end", "write")

    def __init__(self, exchange: Exchange) -> None:
        self.write = exchange.deliver
        self.end = exchange.deliver_end


class _FromClient:
    """The client as the source of a request."""

    __slots__ = ("pause", "resume")

    def __init__(self, exchange: Exchange) -> None:
        self.pause = exchange.pause_client
        self.resume = exchange.resume_client


class FilterRun:
    """Runs the phases of an exchange, one after the other (`exchange.FilterRun`).

    While a phase takes time, one task waits for it; what arrives meanwhile is held.
    """

    __slots__ = (
        "_collected", "_deadline", "_end", "_exchange", "_held", "_held_body", "_max_collected",
        "_origin", "_paths", "_phases", "_reply", "_request_stages", "_response_stages", "_running",
        "_spill", "_task", "holds_request", "is_broken",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, phases: Phases) -> None:
        self._exchange = exchange
        self._phases = phases
        self._origin: Origin | None = None
        self._task: asyncio.Task[Any] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        """Until when it is waited for."""
        self._held: list[bytes] = []
        """The body of the request so far, which is not credited to the client: its flow-control
        window bounds it."""
        self._end: Fields | None = None
        """Trailers of a request that is complete."""
        self._spill: Spill | None = None
        """The body of a request that is collected before it is forwarded."""
        self._max_collected = 0
        self._collected: asyncio.Future[None] | None = None
        self._request_stages: list[BodyStage] = []
        self._response_stages: list[BodyStage] = []
        self._paths: list[BodyPath] = []
        self._held_body: HeldBody | None = None
        """The body of the origin's response so far, while its head is with a filter."""
        self._running: RouteFilter | None = None
        """The filter whose phase was started last."""
        self._reply: Reply | None = None
        """What takes the place of the origin's response."""
        self.holds_request = False
        self.is_broken = False

    # --- for filters ----------------------------------------------------------------------------

    def transform_request(self, stage: BodyStage) -> None:
        stage.owner = self._running.name if self._running is not None else ""
        self._request_stages.append(stage)

    def transform_response(self, stage: BodyStage) -> None:
        stage.owner = self._running.name if self._running is not None else ""
        self._response_stages.append(stage)

    # --- the request ----------------------------------------------------------------------------

    def begin(self, origin: Origin | None, request: Request) -> None:
        self._origin = origin
        self.holds_request = True
        self._filter_request(0, request)

    @property
    def keeps_client_waiting(self) -> bool:
        return self.holds_request and self._spill is None

    def hold(self, data: bytes) -> None:
        spill = self._spill
        if spill is None:
            self._held.append(data)
            return
        exchange = self._exchange
        exchange.downstream.consumed(len(data))
        if spill.size + len(data) > self._max_collected:
            exchange.refuse(413, Outcome.REQUEST_TOO_LARGE)
        elif not spill.may_grow:
            reason = "too much is buffered"
            exchange.refuse(503, Outcome.OVERLOADED, reason=reason, retry_after=RETRY_AFTER)
        else:
            self.guard(spill.append, data)

    def hold_end(self, trailers: Sequence[Field]) -> None:
        self._end = list(trailers)
        if self._collected is not None and not self._collected.done():
            self._collected.set_result(None)

    async def collect_request(self, spill: Spill, max_size: int) -> None:
        """Wait until the whole body of the request is in `spill`, from which it is forwarded."""
        self._spill, self._max_collected = spill, max_size
        self._collected = asyncio.get_running_loop().create_future()
        held, self._held = self._held, []
        for data in held:
            self.hold(data)
        if self._end is not None and not self._collected.done():
            self._collected.set_result(None)
        await self._collected

    def _filter_request(self, start: int, request: Request) -> None:
        """Pass a request through the filters from number `start` on."""
        exchange = self._exchange
        steps = self._phases.requests
        for at in range(start, len(steps)):
            step = self._running = steps[at]
            try:
                result = step.on_request(request, exchange)
            except BaseException as error:  # even SystemExit: it would end the worker
                self._failed(step.name, error)
                return
            if type(result) is Request:
                request = result
            elif isawaitable(result):
                self._wait(step, result, partial(self._request_filtered, at))
                return
            else:
                self._request_filtered(at, result)
                return
            if exchange.response_over:
                return
        self.holds_request = False
        held, self._held = self._held, []
        if self._spill is not None and self._spill.size:
            # Before the stages of all filters: it holds what the client has sent.
            stage = BufferStage(self._spill, self._spill.size, self.guard)
            self._request_stages.insert(0, stage)
            exchange.forward(self._origin, request, (), self._end, is_collected=True)
        else:
            exchange.forward(self._origin, request, held, self._end)

    def _request_filtered(self, at: int, result: object) -> None:
        """The filter `at` has returned a result, other than at once a request."""
        if isinstance(result, Request):
            self._filter_request(at + 1, result)
        elif isinstance(result, Reply):
            self._exchange.reply(result)
        else:
            error = TypeError(f"on_request returned {type(result).__name__}")
            self._failed(self._phases.requests[at].name, error)

    def request_path(self) -> BodyPath | None:
        if not self._request_stages or self._exchange.origin is None:
            return None
        source = _FromClient(self._exchange)
        path = BodyPath(self._request_stages, source, self._exchange.origin)
        self._paths.append(path)
        return path

    # --- the response ---------------------------------------------------------------------------

    def respond(self, response: Response) -> None:
        self._filter_response(0, response)

    def reply(self, reply: Reply) -> None:
        self._stop_waiting()
        self._drop_held()
        self._take(reply)
        self._filter_response(0, reply.response)

    def _take(self, reply: Reply) -> None:
        """A reply takes the place of the response so far."""
        self._close(self._response_stages)
        self._reply = reply
        response = reply.response
        has_body = response_has_body(b"GET", response.status)
        if not has_body:
            reply.body = b""
        has_length = any(name == b"content-length" for name, _ in response.fields)
        if not reply.body and has_length is has_body:
            return
        fields = [field for field in response.fields if field[0] != b"content-length"]
        if has_body:
            fields.append((b"content-length", b"%d" % len(reply.body)))
        reply.response = Response(response.status, fields, response.version)

    def _filter_response(self, start: int, response: Response) -> None:
        """Pass a response through the filters from number `start` on."""
        exchange = self._exchange
        steps = self._phases.responses
        for at in range(start, len(steps)):
            step = self._running = steps[at]
            try:
                result = step.on_response(response, exchange)
            except BaseException as error:
                self._broken(step.name, error)
                return
            if type(result) is Response:
                response = result
            elif isawaitable(result):
                self._hold_response()
                self._wait(step, result, partial(self._response_filtered, at, response))
                return
            else:
                self._response_filtered(at, response, result)
                return
            if exchange.response_over:
                return
        self._respond(response)

    def _response_filtered(self, at: int, given: Response, result: object) -> None:
        """The filter `at` has returned a result, other than at once a response."""
        if isinstance(result, Reply):
            if self._reply is None:
                self._exchange.replace_response(may_run_out=_is_short(given))
            else:
                # Another page for the same error.
                result.outcome, result.reason = self._reply.outcome, self._reply.reason
            self._take(result)
            result = result.response
        if isinstance(result, Response):
            self._filter_response(at + 1, result)
        else:
            error = TypeError(f"on_response returned {type(result).__name__}")
            self._broken(self._phases.responses[at].name, error)

    def _hold_response(self) -> None:
        """Hold back what the origin sends until the filters are done."""
        if self._reply is None and self._held_body is None:
            self._held_body = HeldBody(_FromOrigin(self._exchange))
            self._exchange.route_response_through(self._held_body)

    def _respond(self, response: Response) -> None:
        """All filters are done."""
        exchange = self._exchange
        reply, stages = self._reply, self._response_stages
        method = exchange.request.method
        if not response_has_body(method, response.status):
            self._close(stages)
            if reply is not None:
                reply.body = b""
        path: BodyPath | None = None
        if stages:
            path = BodyPath(stages, _FromOrigin(exchange), _ToClient(exchange))
            self._paths.append(path)
        if reply is not None:
            reply.response = response
            exchange.send_reply(reply, path)
            return
        held, self._held_body = self._held_body, None
        exchange.send_head(response)
        if exchange.response_over:
            return
        exchange.route_response_through(path)
        if held is not None:
            self.guard(held.release, path or _ToClient(exchange))

    # --- errors and the end -----------------------------------------------------------------------

    def _wait(
        self, step: RouteFilter, awaitable: Awaitable[Any], go_on: Callable[[object], None]
    ) -> None:
        task = asyncio.ensure_future(_result(awaitable))
        self._task = task
        task.add_done_callback(partial(self._waited, step, awaitable, go_on))
        if step.timeout is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(step.timeout, self._waited_too_long, step)

    def _waited_too_long(self, step: RouteFilter) -> None:
        # Even a task that goes on when it is cancelled is not waited for any longer.
        self._stop_waiting()
        self._step_failed(step, TimeoutError(f"took longer than {step.timeout:g} seconds"))

    def _waited(
        self,
        step: RouteFilter,
        awaitable: Awaitable[Any],
        go_on: Callable[[object], None],
        task: asyncio.Task[Any],
    ) -> None:
        if isinstance(awaitable, Coroutine):
            awaitable.close()  # it may have been cancelled before it began
        if task is not self._task:
            if not task.cancelled():
                task.exception()  # nobody waits for it any more
            return
        self._stop_waiting()
        if task.cancelled():
            self._step_failed(step, RuntimeError("it has cancelled itself"))
        elif (error := task.exception()) is not None:
            self._step_failed(step, error)
        else:
            go_on(task.result())

    def _step_failed(self, step: RouteFilter, error: BaseException) -> None:
        """A phase that took time has failed."""
        failed = self._failed if self.holds_request else self._broken
        failed(step.name, error)

    def guard(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            call(*arguments)
        except BaseException as error:
            running = self._running.name if self._running is not None else ""
            self._failed(_owner(error) or running, error)

    def _failed(self, name: str, error: BaseException) -> None:
        if self._exchange.response_over:
            return
        reason = describe(error)
        self._phases.note_failure(name, reason, error)
        self._exchange.filter_failed(f"{name}: {reason}")

    def _broken(self, name: str, error: BaseException) -> None:
        """A filter has failed on a response: even that to its failure cannot pass the filters."""
        self.is_broken = True
        self._failed(name, error)

    def _stop_waiting(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()  # unless it is done
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _drop_held(self) -> None:
        """Give credit for the held part of a request that is not forwarded."""
        self.holds_request = False
        held, self._held = self._held, []
        for data in held:
            self._exchange.downstream.consumed(len(data))

    def close(self) -> None:
        self._stop_waiting()
        if self.holds_request:
            self._drop_held()
        if self._spill is not None:
            self._spill.close()
        for path in self._paths:
            path.disconnect()
        self._paths.clear()
        self._close(self._request_stages)
        self._close(self._response_stages)
        self._held_body = None

    def _close(self, stages: list[BodyStage]) -> None:
        """Close stages and forget them; one that fails keeps no other from being closed."""
        for stage in stages:
            try:
                stage.close()
            except BaseException as error:
                self._phases.note_failure(stage.owner, describe(error), error)
        stages.clear()


def _is_short(response: Response) -> bool:
    """Whether to read the rest of a response that nobody wants, and keep the connection."""
    declared = [value for name, value in response.fields if name == b"content-length"]
    return len(declared) == 1 and declared[0].isdigit() and int(declared[0]) <= REPLACED_BODY


def _owner(error: BaseException) -> str:
    """The filter whose body stage has raised an error: that of the innermost one."""
    name, trace = "", error.__traceback__
    while trace is not None:
        called = trace.tb_frame.f_locals.get("self")
        if isinstance(called, BodyStage):
            name = called.owner
        trace = trace.tb_next
    return name


async def _result(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except (KeyboardInterrupt, SystemExit) as error:
        # A task would pass it on to the event loop, which would end the worker.
        raise RuntimeError(f"raised {describe(error)}") from error
