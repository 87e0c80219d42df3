%% SPDX-License-Identifier: Apache-2.0
%% @doc Users of every part of the library, who go on while it stops and starts.
%%
%% Each uses its part again and again and holds it to its promise: a use ends once, in time, with a result or
%% with a word about the stop, and nothing comes after its end.
-module(tokamak_load).

-export([start/0, stop/1, uses/1, wait_until_used/1, parts/0, use/1]).

%% A use that takes longer hangs.
-define(PATIENCE, 30_000).
%% Of a call that only a stop ends.
-define(FOR_EVER, 600_000).

-record(load, {users :: [{pid(), reference(), part()}], counts :: ets:table()}).

-type part() :: atom().

%% @doc Starts a user of every part.
start() ->
    Parts = parts(),
    Counts = ets:new(?MODULE, [public, {write_concurrency, true}]),
    true = ets:insert(Counts, [{{Part, End}, 0} || Part <- Parts, End <- [done, refused]]),
    Users = [
        begin
            {Pid, Monitor} = spawn_monitor(fun() -> use_again(Part, Counts) end),
            {Pid, Monitor, Part}
        end
     || Part <- Parts
    ],
    #load{users = Users, counts = Counts}.

%% @doc How often each part was used to the end, and how often a stop came before: `#{Part => {Done, Refused}}'.
uses(#load{users = Users, counts = Counts}) ->
    Count = fun(Part, End) -> ets:lookup_element(Counts, {Part, End}, 2) end,
    maps:from_list([{Part, {Count(Part, done), Count(Part, refused)}} || {_, _, Part} <- Users]).

%% @doc Waits until every part was used that is not used until a stop.
wait_until_used(Load) ->
    Endless = [endless_call, endless_stream, endless_program],
    Unused = fun() -> [Part || {Part, {0, _}} <- maps:to_list(maps:without(Endless, uses(Load)))] end,
    tokamak_test:wait_for(Unused, [], ?PATIENCE).

%% @doc Ends the users after their current use, and the application, which some of them wait for; fails when one
%% had to complain.
stop(#load{users = Users, counts = Counts} = Load) ->
    _ = [Pid ! stop || {Pid, _, _} <- Users],
    ok = application:stop(tokamak),
    Complaints = [{Part, Reason} || {_, _, Part} = User <- Users, Reason <- [ended(User)], Reason =/= normal],
    Uses = uses(Load),
    true = ets:delete(Counts),
    case Complaints of
        [] -> Uses;
        _ -> error({complaints, Complaints})
    end.

ended({Pid, Monitor, _Part}) ->
    receive
        {'DOWN', Monitor, process, Pid, Reason} -> Reason
    after 2 * ?PATIENCE ->
        {hangs, process_info(Pid, current_stacktrace), exit(Pid, kill)}
    end.

use_again(Part, Counts) ->
    End = tally(use(Part)),
    _ = ets:update_counter(Counts, {Part, End}, 1),
    %% Leave the processors to the start or stop that is under way.
    Pause = case End of done -> 0; refused -> 1 end,
    receive
        stop -> ok;
        Stray -> exit({after_the_end, Part, Stray})
    after Pause -> use_again(Part, Counts)
    end.

tally(ok) -> done;
tally({error, Reason}) when Reason =:= shutdown; Reason =:= closed -> refused;
tally(Other) -> exit({unexpected, Other}).

parts() ->
    [
        eager_call, waiting_call, endless_call, engine_call, blocking_call, asynchronous_call, cancelled_call,
        gather, stream, endless_stream, duplex, submission, timers, native_descriptors, selected_descriptors,
        raw_loop, handler, native_pool, function_pool, progress, program, talking_program, endless_program
    ].

%% @doc Uses a part once: `ok', or what the stop made of it.
use(eager_call) ->
    expect({ok, x}, tokamak:call(echo, [x]));
use(waiting_call) ->
    expect({ok, ok}, tokamak:call(sleep, [1]));
use(endless_call) ->
    ended_by_stop(fun() -> tokamak:call(sleep, [?FOR_EVER], #{timeout => ?PATIENCE}) end);
use(engine_call) ->
    expect({ok, 7}, tokamak:call(op(later), [7, 500]));
use(blocking_call) ->
    expect({ok, ok}, tokamak:call(op(block), [1, 1]));
use(asynchronous_call) ->
    Ref = tokamak:async(sleep, [2]),
    expect({ok, ok}, message(Ref));
use(cancelled_call) ->
    Refs = [tokamak:async(sleep, [N]) || N <- [0, 1, ?FOR_EVER]],
    lists:foreach(fun tokamak:cancel/1, Refs);
use(gather) ->
    expect({ok, lists:duplicate(50, ok)}, tokamak:gather([{sleep, [N rem 3]} || N <- lists:seq(1, 50)]));
use(stream) ->
    with_stream(tokamak:stream(op(binaries), [50, 1000]), 50);
use(endless_stream) ->
    case tokamak:stream(op(silence), [1]) of
        {error, _} = Error -> Error;
        Stream -> ended_by_stop(fun() -> tokamak:next(Stream, ?PATIENCE) end)
    end;
use(duplex) ->
    use_duplex(tokamak:open(op(sums), [1]));
use(submission) ->
    with_loop(native, fun(Loop) ->
        case tokamak_loop:submit(Loop, 1, sleep, [1]) of
            ok -> submitted(poll(Loop));
            Error -> Error
        end
    end);
use(timers) ->
    with_loop(native, fun(Loop) ->
        case tokamak_loop:start_timer(Loop, 1, 1) of
            Timer when is_integer(Timer) -> expect([{1, timer, Timer}], poll(Loop));
            Error -> Error
        end
    end);
use(native_descriptors) ->
    with_loop(native, fun use_descriptors/1);
use(selected_descriptors) ->
    with_loop(select, fun use_descriptors/1);
use(raw_loop) ->
    case tokamak_loop:open() of
        {ok, Loop} -> use_raw(Loop);
        Error -> Error
    end;
use(handler) ->
    case tokamak_router:loop_for(self()) of
        {error, _} = Error -> Error;
        Loop -> use_handler(Loop, tokamak_id:next())
    end;
use(native_pool) ->
    finished(1365, tokamak_pool:run({op, op(tree)}, [0], #{max_items => 1365}));
use(function_pool) ->
    Twice = fun(N) -> {ok, N, [C || C <- [2 * N + 1, 2 * N + 2], C < 100]} end,
    finished(100, tokamak_pool:run(Twice, [0], #{workers => 2}));
use(progress) ->
    use_progress();
use(program) ->
    case tokamak_subprocess:run(["cat"], #{stdin => <<"through the cat">>}) of
        {ok, #{stdout := Output}} -> expect(<<"through the cat">>, Output);
        Error -> Error
    end;
use(talking_program) ->
    use_program(tokamak_subprocess:start(["sh", "-c", "echo out; echo err >&2; exit 3"]));
use(endless_program) ->
    case tokamak_subprocess:start(["sleep", "1000"]) of
        {ok, P} -> ended_by_stop(fun() -> tokamak_subprocess:recv(P, ?PATIENCE) end);
        Error -> Error
    end.

op(Name) ->
    {tokamak_test_engine, Name}.

expect(Result, Result) -> ok;
expect(_Result, {error, Reason} = Error) when Reason =:= shutdown; Reason =:= closed -> Error;
expect(Result, Other) -> exit({expected, Result, got, Other}).

%% Its end has to be that of the stop: that is what it was used for, if it did not come at once.
ended_by_stop(Wait) ->
    {Microseconds, End} = timer:tc(Wait),
    case End of
        {error, Reason} when Reason =:= shutdown; Reason =:= closed ->
            case Microseconds < 1000 of
                true -> End;
                false -> ok
            end;
        _ ->
            exit({not_ended_by_stop, End})
    end.

message(Ref) ->
    receive
        {tokamak, Ref, Payload} -> Payload
    after ?PATIENCE -> exit(never_ended)
    end.

poll(Loop) ->
    case tokamak_loop:poll(Loop, ?PATIENCE) of
        [] -> exit(no_event);
        Polled -> Polled
    end.

with_stream({error, _} = Error, _Count) ->
    Error;
with_stream(Stream, Count) ->
    case tokamak:fold(fun(Item, N) when byte_size(Item) =:= 1000 -> N + 1 end, 0, Stream) of
        {ok, Seen} -> expect(Count, Seen);
        Error -> Error
    end.

use_duplex({error, _} = Error) ->
    Error;
use_duplex(Stream) ->
    Sent = tokamak:push(Stream, 2),
    Sum = Sent =:= ok andalso tokamak:next(Stream, ?PATIENCE),
    _ = tokamak:close(Stream),
    case Sum of
        false -> expect(ok, Sent);
        _ -> expect({ok, 3}, Sum)
    end.

submitted([{1, async_error, Reason}]) -> {error, Reason};
submitted(Polled) -> expect([{1, async_result, ok}], Polled).

with_loop(Backend, Use) ->
    case tokamak_loop:new(#{backend => Backend}) of
        {ok, Loop} ->
            End = Use(Loop),
            _ = tokamak_loop:destroy(Loop),
            End;
        Error ->
            Error
    end.

use_descriptors(Loop) ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    End =
        case tokamak_loop:add_reader(Loop, Read, 1) of
            ok -> expect([{1, read, undefined}], poll(Loop));
            Error -> Error
        end,
    [ok = tokamak_fd:close(Fd) || Fd <- [Read, Write]],
    End.

%% Its owner is told that there is something to drain, an end included.
use_raw(Loop) ->
    case tokamak_loop:post(Loop, 1, user, x) of
        ok ->
            ready = message(Loop),
            End =
                case tokamak_loop:drain(Loop) of
                    {empty, Events} -> expect([{1, user, x}], Events);
                    Error -> Error
                end,
            close_raw(Loop),
            End;
        Error ->
            close_raw(Loop),
            Error
    end.

close_raw(Loop) ->
    _ = tokamak_loop:destroy(Loop),
    receive
        {tokamak, Loop, ready} -> ok
    after 0 -> ok
    end.

use_handler(Loop, Id) ->
    case tokamak_loop:register(Loop, Id, self()) of
        {error, _} = Error ->
            Error;
        Ref ->
            _ = tokamak_loop:post(Loop, Id, user, x),
            handled(Loop, Id, Ref, message(Ref))
    end.

handled(Loop, Id, Ref, {event, Id, user, x}) ->
    case tokamak_loop:unregister(Loop, Id) of
        ok -> ok;
        {error, closed} -> handled(Loop, Id, Ref, message(Ref))
    end;
handled(_Loop, _Id, _Ref, closed) ->
    {error, closed}.

finished(Count, {ok, Results, _Stats}) -> expect(Count, length(Results));
finished(_Count, Error) -> Error.

%% Progress that nobody looks at is lost, so what comes last is done, or nothing.
use_progress() ->
    Key = make_ref(),
    case tokamak_progress:subscribe(Key) of
        {error, _} = Error ->
            Error;
        Ref ->
            ok = tokamak_progress:report(Key, 1, 1),
            End =
                receive
                    {tokamak, Ref, {progress, Key, #{status := done}}} -> ok
                after 100 -> {error, shutdown}
                end,
            ok = tokamak_progress:unsubscribe(Ref),
            End
    end.

use_program({error, _} = Error) ->
    Error;
use_program({ok, P}) ->
    case tokamak_subprocess:active(P, 10) of
        ok -> output(P, message(P), []);
        {error, closed} = Error -> Error
    end.

output(_P, {exit, Status}, Output) ->
    expect({3, [{stderr, <<"err\n">>}, {stdout, <<"out\n">>}]}, {Status, lists:sort(Output)});
output(_P, {error, _} = Error, _Output) ->
    Error;
output(P, {_, Bytes} = Part, Output) when is_binary(Bytes) ->
    output(P, message(P), [Part | Output]).
