%% SPDX-License-Identifier: Apache-2.0
%% @doc Event loops: descriptors, timers and native events in one place, batched, bounded, in order.
%%
%% There are two kinds. {@link new/1} makes a supervised loop, which lives until it is destroyed: any
%% process may {@link poll/2} it, one at a time, and events of registered callback ids go to their
%% handlers as messages. {@link open/1} makes a raw loop, which belongs to the calling process and ends
%% with it: that process is sent one `{tokamak, Loop, ready}' when there is something, and then calls
%% {@link drain/1} until it says `empty'.
%%
%% An event is `{CallbackId, Type, Data}'. For a descriptor, Type is `read' or `write' and Data
%% `undefined'; for a timer, Type is `timer' and Data its reference. docs/messages.md defines every
%% message, and when a descriptor is reported again.
%%
%% Nothing here waits but {@link poll/2} and, for a message or two to the loop's process,
%% {@link register/3}, {@link unregister/2} and {@link destroy/1}.
-module(tokamak_loop).

-export([new/0, new/1, open/0, open/1, destroy/1, info/1]).
-export([poll/2, drain/1, drain/2]).
-export([add_reader/3, remove_reader/2, add_writer/3, remove_writer/2]).
-export([start_timer/3, cancel_timer/2]).
-export([register/3, unregister/2, post/4]).
-export([submit/4, submit_many/2]).
-export([adopt/3]).
-export([event_types/0]).

-include("tokamak_error.hrl").

-export_type([loop/0, callback_id/0, event/0, event_type/0, options/0, timer_ref/0]).
-opaque loop() :: tokamak_nif:loop().
-type callback_id() :: pos_integer().
%% From 1 to 2^63-1: the caller's own, or one of {@link tokamak_id}.
-type timer_ref() :: pos_integer().
-type event() :: {callback_id(), event_type(), Data :: term()}.
-type event_type() ::
    read
    | write
    | timer
    | call_result
    | call_error
    | async_result
    | async_error
    | subprocess_exit
    | subprocess_stdout
    | subprocess_stderr
    | socket_data
    | socket_closed
    | socket_error
    | user.
-type options() :: #{
    name => atom(),
    backend => native | select,
    max_queue => pos_integer(),
    max_timers => pos_integer()
}.
%% `name' registers the process of a supervised loop. `backend' is how descriptors are watched: `native'
%% (epoll, the default on Linux and only there) or `select' (the VM's own poll threads). `max_queue' (65536) bounds the events that
%% wait, `max_timers' (1048576) the timers that are set; both are at most 16777216.

-define(OPTIONS, #{name => name, backend => backend, max_queue => limit, max_timers => limit}).
-define(RAW_OPTIONS, #{backend => backend, max_queue => limit, max_timers => limit}).
%% A flush looks through the mailbox; in a longer one a `ready' too many does no harm.
-define(LONGEST_FLUSHED_MAILBOX, 1000).

%% @equiv new(#{})
-spec new() -> {ok, loop()} | {error, term()}.
new() ->
    new(#{}).

%% @doc Makes a supervised loop. `{error, shutdown}': the application does not run; `{error,
%% {already_started, Pid}}': the name is taken; `{error, emfile}' and the like: no descriptor is left.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new(#{name => my_loop, max_queue => 1000}).
%% true = is_pid(whereis(my_loop)).
%% ok = tokamak_loop:destroy(Loop).
%% '''
-spec new(options()) -> {ok, loop()} | {error, term()}.
new(Options) ->
    case tokamak_error:options(Options, ?OPTIONS) of
        ok -> tokamak_loop_sup:start_loop(with_defaults(Options));
        error -> ?BADARG([Options], [{options, ?OPTIONS}])
    end.

%% @equiv open(#{})
-spec open() -> {ok, loop()} | {error, term()}.
open() ->
    open(#{}).

%% @doc Makes a raw loop of the calling process, which is sent `{tokamak, Loop, ready}' and drains. Options and errors
%% are those of {@link new/1}, without a name.
%%
%% ```
%% {ok, Loop} = tokamak_loop:open(#{max_queue => 1000}).
%% ok = tokamak_loop:post(Loop, 1, user, hello).
%% receive {tokamak, Loop, ready} -> ok end.
%% {empty, [{1, user, hello}]} = tokamak_loop:drain(Loop).
%% '''
-spec open(options()) -> {ok, loop()} | {error, term()}.
open(Options) ->
    case tokamak_error:options(Options, ?RAW_OPTIONS) of
        ok -> open_raw(with_defaults(Options));
        error -> ?BADARG([Options], [{options, ?RAW_OPTIONS}])
    end.

open_raw(#{backend := Backend, max_queue := MaxQueue, max_timers := MaxTimers}) ->
    case tokamak_nif:loop_open(raw, Backend, MaxQueue, MaxTimers) of
        {ok, Loop} when Backend =:= select -> with_selector(Loop);
        Result -> Result
    end.

with_selector(Loop) ->
    case tokamak_loop_sup:start_selector(Loop) of
        ok ->
            {ok, Loop};
        {error, _} = Error ->
            _ = tokamak_nif:loop_close(Loop),
            Error
    end.

with_defaults(Options) ->
    Defaults = #{backend => default_backend(), max_queue => 65536, max_timers => 1048576},
    maps:merge(Defaults, Options).

default_backend() ->
    case os:type() of
        {unix, linux} -> native;
        _ -> select
    end.

%% @doc Ends a loop: its timers and events are dropped, its descriptors are watched no more (they stay
%% open), pollers get `{error, closed}', handlers `{tokamak, Ref, closed}'. A raw loop can be destroyed by
%% its owner only, any other process raises `not_owner'; the owner is sent nothing.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% ok = tokamak_loop:destroy(Loop).
%% {error, closed} = tokamak_loop:destroy(Loop).
%% {error, closed} = tokamak_loop:poll(Loop, 5000).
%% '''
-spec destroy(loop()) -> ok | {error, closed}.
destroy(Loop) ->
    case tokamak_nif:loop_owner(Loop) of
        {supervised, Pid} ->
            call(Pid, destroy);
        {raw, _Owner} ->
            case tokamak_nif:loop_close(Loop) of
                not_owner -> ?NOT_OWNER([Loop]);
                ok -> flush(Loop);
                {error, closed} -> closed(Loop)
            end;
        badarg ->
            ?BADARG([Loop], [loop]);
        {error, closed} ->
            closed(Loop)
    end.

%% The owner of a raw loop was told when something else closed it.
closed(Loop) ->
    flush_ready(Loop),
    {error, closed}.

%% @doc Shows a loop's options and counters: `queued' events, `timers' set, descriptors watched by `readers'
%% and `writers', `handlers'; and since its start: events `pushed' and `drained', `wakes' sent, descriptor
%% events `coalesced' with a pending one, events `refused', the `high_water_mark' of the queue, and `busy_polls':
%% how often its consumer looked a moment longer before it slept, `busy_polls_in_vain' of them without finding anything.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new(#{max_queue => 1000}).
%% ok = tokamak_loop:post(Loop, 1, user, hello).
%% #{max_queue := 1000, queued := 1, timers := 0, refused := 0} = tokamak_loop:info(Loop).
%% '''
-spec info(loop()) -> map() | {error, closed}.
info(Loop) ->
    case tokamak_nif:loop_info(Loop) of
        badarg -> ?BADARG([Loop], [loop]);
        Result -> Result
    end.

%% @doc Takes the events that are pending, 1,024 at most; if there is none, waits up to `Timeout' milliseconds for the
%% first and returns `[]' when none came. With 0 it only looks. It may keep its scheduler for some microseconds more
%% before it waits, while descriptors follow each other that fast (`busy_poll' in docs/configuration.md).
%%
%% `busy': another process is waiting in poll. Only its owner may poll a raw loop.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% [] = tokamak_loop:poll(Loop, 0).
%% Timer = tokamak_loop:start_timer(Loop, 10, 1).
%% [{1, timer, Timer}] = tokamak_loop:poll(Loop, 5000).
%% '''
-spec poll(loop(), timeout()) -> [event()] | {error, busy | closed}.
poll(Loop, Timeout) when ?IS_TIMEOUT(Timeout) ->
    case poll_any(Loop, Timeout) of
        not_owner -> ?NOT_OWNER([Loop, Timeout]);
        badarg -> ?BADARG([Loop, Timeout], [loop, timeout]);
        Result -> Result
    end;
poll(Loop, Timeout) ->
    ?BADARG([Loop, Timeout], [loop, timeout]).

poll_any(Loop, Timeout) ->
    Polled =
        case Timeout of
            0 -> poll_now(Loop);
            _ -> poll_until(Loop, Timeout)
        end,
    case Polled of
        raw -> poll_raw(Loop, tokamak_deadline:new(Timeout));
        Result -> Result
    end.

poll_now(Loop) ->
    case tokamak_nif:loop_poll(Loop, undefined) of
        more -> poll_now(Loop);
        Result -> Result
    end.

%% The reference is always made here, so that a wait does not look through the whole mailbox.
poll_until(Loop, Timeout) ->
    Reference = make_ref(),
    case tokamak_nif:loop_poll(Loop, Reference) of
        waiting -> wait(Loop, Reference, tokamak_deadline:new(Timeout));
        more -> poll_on(Loop, Reference, tokamak_deadline:new(Timeout));
        Result -> Result
    end.

wait(Loop, Reference, Deadline) ->
    receive
        {tokamak, Reference, ready} ->
            poll_on(Loop, Reference, Deadline);
        {tokamak, Reference, closed} ->
            {error, closed}
    after tokamak_deadline:time_left(Deadline) ->
        stop_waiting(Loop, Reference)
    end.

poll_on(Loop, Reference, Deadline) ->
    case tokamak_nif:loop_poll(Loop, Reference) of
        waiting -> wait(Loop, Reference, Deadline);
        more -> poll_on(Loop, Reference, Deadline);
        Result -> Result
    end.

stop_waiting(Loop, Reference) ->
    case tokamak_nif:loop_stop_waiting(Loop) of
        true ->
            [];
        false ->
            %% The wake was sent before the wait ended, so it comes.
            receive
                {tokamak, Reference, ready} -> poll_now(Loop);
                {tokamak, Reference, closed} -> {error, closed}
            end
    end.

poll_raw(Loop, Deadline) ->
    flush_ready(Loop),
    case tokamak_nif:loop_drain(Loop, 0, true) of
        {error, _} = Error ->
            Error;
        not_owner ->
            not_owner;
        {more, []} ->
            poll_raw(Loop, Deadline);
        {empty, []} ->
            receive
                {tokamak, Loop, ready} -> poll_raw(Loop, Deadline)
            after tokamak_deadline:time_left(Deadline) -> []
            end;
        {_, Events} ->
            Events
    end.

%% @doc {@link drain/2} of 1,024 events.
-spec drain(loop()) -> {more | empty, [event()]} | {error, closed | not_supported}.
drain(Loop) ->
    flush_ready(Loop),
    case tokamak_nif:loop_drain(Loop, 0, false) of
        not_owner -> ?NOT_OWNER([Loop]);
        badarg -> ?BADARG([Loop], [loop]);
        Result -> Result
    end.

%% @doc Takes up to `Max' pending events of a raw loop, for its owner alone: any other process raises
%% `not_owner'.
%%
%% `more': there may be more, and no `ready' comes before they were drained. `empty': that was all, and
%% the next event sends `ready'. One call takes at most half a millisecond. A supervised loop is polled
%% instead (`not_supported').
%%
%% ```
%% {ok, Loop} = tokamak_loop:open().
%% [ok = tokamak_loop:post(Loop, 1, user, N) || N <- [1, 2, 3]].
%% {more, [{1, user, 1}, {1, user, 2}]} = tokamak_loop:drain(Loop, 2).
%% {empty, [{1, user, 3}]} = tokamak_loop:drain(Loop).
%% '''
-spec drain(loop(), Max :: pos_integer()) ->
    {more | empty, [event()]} | {error, closed | not_supported}.
drain(Loop, Max) when is_integer(Max), Max >= 1, Max =< 16#7FFFFFFF ->
    flush_ready(Loop),
    case tokamak_nif:loop_drain(Loop, Max, false) of
        not_owner -> ?NOT_OWNER([Loop, Max]);
        badarg -> ?BADARG([Loop, Max], [loop, size]);
        Result -> Result
    end;
drain(Loop, Max) ->
    ?BADARG([Loop, Max], [loop, size]).

%% An owner that drains without having received `ready' must not gather one for each drain.
flush_ready(Loop) ->
    case process_info(self(), message_queue_len) of
        %% Messages that have not been looked for are not counted: 0 does not mean none.
        {message_queue_len, Length} when Length =< ?LONGEST_FLUSHED_MAILBOX ->
            receive
                {tokamak, Loop, ready} -> flush_ready(Loop)
            after 0 -> ok
            end;
        _ ->
            ok
    end.

%% @doc Watches a descriptor for reading. Its events carry `CallbackId'; a second call changes the id.
%%
%% `not_pollable': regular files and the like are always ready. `busy': another loop watches it.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% {ok, Read, Write} = tokamak_fd:pipe().
%% ok = tokamak_loop:add_reader(Loop, Read, 7).
%% {ok, 2} = tokamak_fd:write(Write, "hi").
%% [{7, read, undefined}] = tokamak_loop:poll(Loop, 5000).
%% {ok, <<"hi">>} = tokamak_fd:read(Read, 1024).
%% ok = tokamak_loop:remove_reader(Loop, Read).
%% '''
-spec add_reader(loop(), tokamak_fd:fd(), callback_id()) ->
    ok | {error, closed | not_pollable | busy | file:posix()}.
add_reader(Loop, Fd, CallbackId) ->
    case tokamak_nif:loop_watch(Loop, Fd, read, CallbackId) of
        badarg -> ?BADARG([Loop, Fd, CallbackId], [loop, fd, callback_id]);
        Result -> Result
    end.

%% @doc Ends watching a descriptor for reading: no event of it is given to a poller or by a drain any more. What a
%% handler was sent before may be in its mailbox. `not_watched': this loop does not watch it for reading.
-spec remove_reader(loop(), tokamak_fd:fd()) -> ok | {error, closed | not_watched}.
remove_reader(Loop, Fd) ->
    case tokamak_nif:loop_unwatch(Loop, Fd, read) of
        badarg -> ?BADARG([Loop, Fd], [loop, fd]);
        Result -> Result
    end.

%% @doc Watches a descriptor for writing, as {@link add_reader/3} does for reading. Mind that most
%% descriptors can be written most of the time.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% {ok, _Read, Write} = tokamak_fd:pipe().
%% ok = tokamak_loop:add_writer(Loop, Write, 8).
%% [{8, write, undefined}] = tokamak_loop:poll(Loop, 5000).
%% ok = tokamak_loop:remove_writer(Loop, Write).
%% {error, not_watched} = tokamak_loop:remove_writer(Loop, Write).
%% '''
-spec add_writer(loop(), tokamak_fd:fd(), callback_id()) ->
    ok | {error, closed | not_pollable | busy | file:posix()}.
add_writer(Loop, Fd, CallbackId) ->
    case tokamak_nif:loop_watch(Loop, Fd, write, CallbackId) of
        badarg -> ?BADARG([Loop, Fd, CallbackId], [loop, fd, callback_id]);
        Result -> Result
    end.

%% @doc Ends watching a descriptor for writing, as {@link remove_reader/2} does for reading.
-spec remove_writer(loop(), tokamak_fd:fd()) -> ok | {error, closed | not_watched}.
remove_writer(Loop, Fd) ->
    case tokamak_nif:loop_unwatch(Loop, Fd, write) of
        badarg -> ?BADARG([Loop, Fd], [loop, fd]);
        Result -> Result
    end.

%% @doc Starts a timer: after `Milliseconds' (up to 2^48-1), never earlier (CLOCK_MONOTONIC), its event comes with the
%% reference as Data, once. `overloaded': `max_timers' are set, or `max_queue' events wait to be delivered.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% Timer = tokamak_loop:start_timer(Loop, 20, 1).
%% [{1, timer, Timer}] = tokamak_loop:poll(Loop, 5000).
%% false = tokamak_loop:cancel_timer(Loop, Timer).
%% '''
-spec start_timer(loop(), Milliseconds :: non_neg_integer(), callback_id()) ->
    timer_ref() | {error, overloaded | closed}.
start_timer(Loop, Milliseconds, CallbackId) when
    is_integer(Milliseconds), Milliseconds =< 16#FFFFFFFFFFFF
->
    case tokamak_nif:timer_start(Loop, Milliseconds, CallbackId) of
        badarg -> ?BADARG([Loop, Milliseconds, CallbackId], [loop, milliseconds, callback_id]);
        Result -> Result
    end;
start_timer(Loop, Milliseconds, CallbackId) ->
    ?BADARG([Loop, Milliseconds, CallbackId], [loop, milliseconds, callback_id]).

%% @doc Cancels a timer: the milliseconds that were left (rounded up), and its event never comes; or `false',
%% when it fired or was cancelled before.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% Timer = tokamak_loop:start_timer(Loop, 60000, 1).
%% Left = tokamak_loop:cancel_timer(Loop, Timer).
%% true = Left > 0 andalso Left =< 60000.
%% '''
-spec cancel_timer(loop(), timer_ref()) -> non_neg_integer() | false | {error, closed}.
cancel_timer(Loop, TimerRef) ->
    case tokamak_nif:timer_cancel(Loop, TimerRef) of
        badarg -> ?BADARG([Loop, TimerRef], [loop, timer]);
        Result -> Result
    end.

%% @doc Makes a process the handler of a callback id, before or after its events begin: it gets
%% `{tokamak, Ref, {event, CallbackId, Type, Data}}' for each, and no poller does. `{tokamak, Ref, closed}' is
%% the last message: the loop ended, or another handler took the id.
%%
%% A handler that lags far behind has its events held back: they count against `max_queue', see
%% docs/messages.md.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% Ref = tokamak_loop:register(Loop, 3, self()).
%% ok = tokamak_loop:post(Loop, 3, user, hello).
%% hello = receive {tokamak, Ref, {event, 3, user, Data}} -> Data end.
%% ok = tokamak_loop:destroy(Loop).
%% closed = receive {tokamak, Ref, Last} -> Last end.
%% '''
-spec register(loop(), callback_id(), pid()) -> reference() | {error, closed | not_supported}.
register(Loop, CallbackId, Pid) when
    ?IS_CALLBACK_ID(CallbackId), is_pid(Pid), node(Pid) =:= node()
->
    case tokamak_nif:loop_owner(Loop) of
        {supervised, Server} -> call(Server, {register, CallbackId, Pid});
        {raw, _Owner} -> {error, not_supported};
        badarg -> ?BADARG([Loop, CallbackId, Pid], [loop, callback_id, pid]);
        {error, closed} = Error -> Error
    end;
register(Loop, CallbackId, Pid) ->
    ?BADARG([Loop, CallbackId, Pid], [loop, callback_id, pid]).

%% @doc Ends a registration, if there is one. Events that come from now on are for pollers; those that
%% are in the mailbox of the caller, when it is the handler, are taken out of it.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% _ = tokamak_loop:register(Loop, 3, self()).
%% ok = tokamak_loop:unregister(Loop, 3).
%% ok = tokamak_loop:post(Loop, 3, user, hello).
%% [{3, user, hello}] = tokamak_loop:poll(Loop, 5000).
%% '''
-spec unregister(loop(), callback_id()) -> ok | {error, closed | not_supported}.
unregister(Loop, CallbackId) when ?IS_CALLBACK_ID(CallbackId) ->
    case tokamak_nif:loop_owner(Loop) of
        {supervised, Server} -> unregister_at(Server, CallbackId);
        {raw, _Owner} -> {error, not_supported};
        badarg -> ?BADARG([Loop, CallbackId], [loop, callback_id]);
        {error, closed} = Error -> Error
    end;
unregister(Loop, CallbackId) ->
    ?BADARG([Loop, CallbackId], [loop, callback_id]).

unregister_at(Server, CallbackId) ->
    case call(Server, {unregister, CallbackId}) of
        {ok, Handler, Reference} when Handler =:= self() -> flush(Reference);
        {ok, _Handler, _Reference} -> ok;
        Result -> Result
    end.

flush(Reference) ->
    receive
        {tokamak, Reference, _} -> flush(Reference)
    after 0 -> ok
    end.

%% @doc Pushes an event into the loop, from any local process. Does not wait. `overloaded': `max_queue' events wait to
%% be delivered.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new(#{max_queue => 1}).
%% ok = tokamak_loop:post(Loop, 1, user, first).
%% {error, overloaded} = tokamak_loop:post(Loop, 1, user, second).
%% [{1, user, first}] = tokamak_loop:poll(Loop, 5000).
%% '''
-spec post(loop(), callback_id(), event_type(), Data :: term()) -> ok | {error, overloaded | closed}.
post(Loop, CallbackId, Type, Data) when is_atom(Type) ->
    case tokamak_nif:loop_post(Loop, CallbackId, Type, Data) of
        badarg -> ?BADARG([Loop, CallbackId, Type, Data], [loop, callback_id, event_type, term]);
        Result -> Result
    end;
post(Loop, CallbackId, Type, Data) ->
    ?BADARG([Loop, CallbackId, Type, Data], [loop, callback_id, event_type, term]).

%% @doc Starts an operation whose end is an event of the loop: `{CallbackId, async_result, Value}' or
%% `{CallbackId, async_error, Reason}'.
%%
%% The call belongs to the loop, not to the calling process: it is cancelled when the loop ends. Its event's
%% place in the queue is taken now, so that a loop that nobody consumes refuses (`overloaded').
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% ok = tokamak_loop:submit(Loop, 5, sleep, [1]).
%% [{5, async_result, ok}] = tokamak_loop:poll(Loop, 5000).
%% {error, {badarg, _}} = tokamak_loop:submit(Loop, 5, sleep, [soon]).
%% '''
-spec submit(loop(), callback_id(), tokamak:op(), [term()]) ->
    ok | {error, overloaded | closed | shutdown | {badarg, string()} | term()}.
submit(Loop, CallbackId, Op, Args) ->
    case tokamak_submit:submit(Loop, [{CallbackId, Op, Args}]) of
        badarg ->
            Kinds = [loop, callback_id, operation, arguments],
            ?BADARG([Loop, CallbackId, Op, Args], Kinds);
        Result ->
            Result
    end.

%% @doc {@link submit/4} of many operations in one native call: all of them, or none. (Those of several
%% engines go engine by engine; an error then means that the ones of earlier engines are running.)
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% ok = tokamak_loop:submit_many(Loop, [{1, echo, [a]}, {2, list_dir, ["/no/such/directory"]}]).
%% [First | More] = tokamak_loop:poll(Loop, 5000).
%% [Second] = case More of [] -> tokamak_loop:poll(Loop, 5000); _ -> More end.
%% [{1, async_result, a}, {2, async_error, {enoent, _}}] = lists:sort([First, Second]).
%% '''
-spec submit_many(loop(), [{callback_id(), tokamak:op(), [term()]}]) ->
    ok | {error, overloaded | closed | shutdown | {badarg, string()} | term()}.
submit_many(Loop, Calls) ->
    case tokamak_submit:submit(Loop, Calls) of
        badarg -> ?BADARG([Loop, Calls], [loop, submissions]);
        Result -> Result
    end.

%% @doc Makes events of the messages of a gen_tcp or gen_udp socket, or of a port, that the calling process owns.
%% A process of the loop owns it from then on: a socket is closed when the loop ends.
%%
%% Sockets: `socket_data' with the bytes (`{IP, Port, Bin}' of gen_udp), and last, once, `socket_closed', or
%% `socket_error' with the reason. The socket becomes binary and is read on a credit of 16 messages, which is given
%% again when they were taken: who does not poll makes the peer wait. Messages that are in the caller's mailbox
%% already become events, too; so do those of a peer that closes meanwhile. Writing is as ever: any process calls
%% `gen_tcp:send/2' or `gen_udp:send/4' on the socket, and `gen_tcp:close/1'.
%%
%% Ports: `subprocess_stdout' with what the port gives, and `subprocess_exit' with its status, if it was opened with
%% `exit_status', or else `undefined' when it is closed (of a port with `eof': when its output ends, and it is closed
%% then). Ports know no credit: what the program behind one writes is not bounded, which is what
%% {@link tokamak_subprocess} is for. `Port ! {Owner, {command, Data}}' is refused by a port that changed hands;
%% `port_command/2' still writes.
%%
%% `not_supported': a raw loop. `not_owner': the calling process does not own it. `einval': it is closed, or it
%% listens; the messages of a closed one stay in the caller's mailbox.
%%
%% ```
%% {ok, Loop} = tokamak_loop:new().
%% {ok, Listener} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}, {active, false}]).
%% {ok, Port} = inet:port(Listener).
%% {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, []).
%% {ok, Socket} = gen_tcp:accept(Listener).
%% ok = tokamak_loop:adopt(Loop, Socket, 9).
%% ok = gen_tcp:send(Client, "hello").
%% [{9, socket_data, <<"hello">>}] = tokamak_loop:poll(Loop, 5000).
%% ok = gen_tcp:close(Client).
%% [{9, socket_closed, undefined}] = tokamak_loop:poll(Loop, 5000).
%% '''
-spec adopt(loop(), gen_tcp:socket() | gen_udp:socket() | port(), callback_id()) ->
    ok | {error, closed | not_supported | not_owner | inet:posix()}.
adopt(Loop, Socket, CallbackId) when ?IS_CALLBACK_ID(CallbackId) ->
    case {tokamak_adoption:kind(Socket), tokamak_nif:loop_owner(Loop)} of
        {error, _} -> ?BADARG([Loop, Socket, CallbackId], [loop, socket, callback_id]);
        {_, badarg} -> ?BADARG([Loop, Socket, CallbackId], [loop, socket, callback_id]);
        {_, {raw, _Owner}} -> {error, not_supported};
        {_, {error, closed} = Error} -> Error;
        {closed, _} -> {error, einval};
        {Kind, {supervised, Server}} -> tokamak_adoption:adopt({Kind, Socket, Loop, Server, CallbackId})
    end;
adopt(Loop, Socket, CallbackId) ->
    ?BADARG([Loop, Socket, CallbackId], [loop, socket, callback_id]).

%% @doc Lists the event types. docs/messages.md says where each comes from.
%%
%% ```
%% true = lists:member(user, tokamak_loop:event_types()).
%% '''
-spec event_types() -> [event_type()].
event_types() ->
    [
        read,
        write,
        timer,
        call_result,
        call_error,
        async_result,
        async_error,
        subprocess_exit,
        subprocess_stdout,
        subprocess_stderr,
        socket_data,
        socket_closed,
        socket_error,
        user
    ].

%% A loop's process that is gone, or goes meanwhile, is a closed loop.
call(Server, Request) ->
    try
        gen_server:call(Server, Request, infinity)
    catch
        exit:_ -> {error, closed}
    end.
