%% SPDX-License-Identifier: Apache-2.0
%% What the abuse suite does to every module: one round each, in a process that may be killed at any moment. A round
%% checks what it gets, consumes slowly, hits limits, and often leaves its things to whoever cleans up after it.
-module(tokamak_soak_loads).

-export([all/0, touch/1, max_in_flight/0]).

%% Reached by the calls of many processes at once.
-define(IN_FLIGHT, 3000).
-define(PATIENCE, 30_000).
%% Of progress.
-define(KEYS, 100).

%% @doc The admission limit that the calls hit.
max_in_flight() ->
    ?IN_FLIGHT.

%% @doc The loads: `{Name, How many processes, Round}'; a round gets the name of a file.
all() ->
    [
        {calls, 6, fun calls/1},
        {gathers, 2, fun gathers/1},
        {streams, 4, fun streams/1},
        {duplex, 2, fun duplex/1},
        {blocking, 2, fun blocking/1},
        {raw_loops, 4, fun raw_loops/1},
        {supervised_loops, 4, fun supervised_loops/1},
        {killed_loops, 1, fun killed_loops/1},
        {handlers, 3, fun handlers/1},
        {lagging_handlers, 1, fun lagging_handlers/1},
        {timers, 2, fun timers/1},
        {descriptors, 3, fun descriptors/1},
        {submissions, 2, fun submissions/1},
        {router, 2, fun router/1},
        {native_pools, 2, fun native_pools/1},
        {function_pools, 2, fun function_pools/1},
        {progress, 3, fun progress/1},
        {subscribers, 3, fun subscribers/1},
        {subprocesses, 3, fun subprocesses/1},
        {slow_subprocesses, 2, fun slow_subprocesses/1},
        {sockets, 2, fun sockets/1}
    ] ++ [{remote, 2, fun remote/1} || nodes(known) =/= [node()]].

%% @doc Uses every module once, so that what lives as long as the application is there.
touch(File) ->
    {ok, touched} = tokamak:call(op(later), [touched, 0]),
    {ok, _} = tokamak:call(hash_file, [File, sha256]),
    {ok, #{status := 0}} = tokamak_subprocess:run(["true"]),
    %% Who reports may be killed before the end, and what nobody touches is kept for minutes.
    [ok = tokamak_progress:report(Key, 1, 1) || Key <- [soak | [{soak, N} || N <- lists:seq(1, ?KEYS)]]],
    _ = tokamak_router:loops(),
    ok.

%% Calls

calls(_File) ->
    Count = rand:uniform(?IN_FLIGHT div 8),
    Refs = [some_call(N) || N <- lists:seq(1, Count)],
    lists:foreach(fun end_call/1, Refs),
    idle().

some_call(N) ->
    case rand:uniform(5) of
        1 -> {N, tokamak:async(echo, [N])};
        2 -> {N, tokamak:async(op(later), [N, rand:uniform(3000)])};
        3 -> {N, tokamak:async(op(later_in_runtime), [N, rand:uniform(3000)])};
        4 -> {ok, tokamak:async(sleep, [rand:uniform(3)])};
        5 -> {never, tokamak:async(op(never), [N])}
    end.

end_call({never, Ref}) ->
    allow([timeout, overloaded], tokamak:await(Ref, rand:uniform(2) - 1));
end_call({Expected, Ref}) ->
    case rand:uniform(3) of
        1 ->
            ok = tokamak:cancel(Ref),
            {error, closed} = tokamak:await(Ref);
        2 ->
            allow([timeout, overloaded], tokamak:await(Ref, 1), Expected);
        3 ->
            allow([overloaded], tokamak:await(Ref, ?PATIENCE), Expected)
    end.

gathers(_File) ->
    Count = rand:uniform(200),
    Calls = [{op(later), [N, rand:uniform(1000)]} || N <- lists:seq(1, Count)],
    Options = #{max_concurrency => rand:uniform(50), timeout => ?PATIENCE},
    {ok, Results} = tokamak:gather(Calls, Options),
    Results = lists:seq(1, Count),
    [allow([overloaded], tokamak:cast(op(never_so_long(N)), never_arguments(N))) || N <- lists:seq(1, 10)],
    idle().

%% Casts outlive their caller, so they have to end by themselves.
never_so_long(N) when N rem 2 =:= 0 -> later;
never_so_long(_N) -> later_in_runtime.

never_arguments(N) ->
    [N, rand:uniform(5000)].

streams(_File) ->
    Count = rand:uniform(300),
    case tokamak:stream(count, [Count, rand:uniform(2) - 1], #{window => rand:uniform(16)}) of
        {error, overloaded} -> idle();
        Stream -> consume(Stream, 1, Count)
    end.

consume(Stream, N, Count) ->
    case {tokamak:next(Stream, ?PATIENCE), rand:uniform(100)} of
        {done, _} when N =:= Count + 1 -> {error, closed} = tokamak:next(Stream);
        %% Left behind.
        {{ok, N}, 1} -> ok;
        {{ok, N}, 2} -> ok = tokamak:close(Stream);
        {{ok, N}, Chance} when Chance < 10 ->
            idle(),
            consume(Stream, N + 1, Count);
        {{ok, N}, _} ->
            consume(Stream, N + 1, Count)
    end.

duplex(_File) ->
    case tokamak:open(op(sums), [0], #{window => 2, inbox => rand:uniform(4)}) of
        {error, overloaded} -> idle();
        Session -> sums(Session, 0, rand:uniform(50))
    end.

sums(Session, _Sum, 0) ->
    tokamak:close(Session);
sums(Session, Sum, Left) ->
    N = rand:uniform(100),
    ok = tokamak:push(Session, N, ?PATIENCE),
    {ok, Next} = tokamak:next(Session, ?PATIENCE),
    Next = Sum + N,
    sums(Session, Next, Left - 1).

blocking(File) ->
    allow([overloaded, timeout], tokamak:call(hash_file, [File, blake3], #{timeout => rand:uniform(20)}), any),
    allow([overloaded], tokamak:call(list_dir, [filename:dirname(File)], #{timeout => ?PATIENCE}), any),
    idle().

remote(_File) ->
    Node = hd(nodes(known) -- [node()]),
    Ref = tokamak:async(sleep, [rand:uniform(5)], #{node => Node}),
    allow([overloaded], tokamak:call(echo, [there], #{node => Node, timeout => ?PATIENCE}), there),
    allow([overloaded, timeout], tokamak:await(Ref, 2), ok),
    Stream = tokamak:stream(count, [20, 0], #{node => Node, window => 2}),
    allow([overloaded], tokamak:next(Stream, ?PATIENCE), 1),
    idle().

%% Loops

backend() ->
    lists:nth(rand:uniform(2), [native, select]).

options() ->
    #{backend => backend(), max_queue => 50 + rand:uniform(100), max_timers => 500}.

raw_loops(_File) ->
    {ok, Loop} = tokamak_loop:open(options()),
    Pipes = [watched(Loop, Id) || Id <- lists:seq(1, 5)],
    feed(Loop, Pipes),
    drain(Loop, 20),
    idle(),
    rand:uniform(2) =:= 1 andalso (ok = tokamak_loop:destroy(Loop)).

supervised_loops(_File) ->
    Loop = tokamak_test:new_loop(options()),
    Pipes = [watched(Loop, Id) || Id <- lists:seq(1, 5)],
    feed(Loop, Pipes),
    _ = [poll(Loop) || _ <- lists:seq(1, 20)],
    idle(),
    ok = tokamak_loop:destroy(Loop).

watched(Loop, Id) ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, Id),
    {Read, Write}.

%% More than it takes.
feed(Loop, Pipes) ->
    [{ok, 100} = tokamak_fd:write(Write, binary:copy(<<"x">>, 100)) || {_, Write} <- Pipes],
    [allow([overloaded], tokamak_loop:post(Loop, 10, user, N)) || N <- lists:seq(1, 200)],
    [_ = tokamak_loop:start_timer(Loop, rand:uniform(20), 11) || _ <- lists:seq(1, 50)],
    [_ = tokamak_fd:read(Read, 60) || {Read, _} <- Pipes],
    ok.

drain(_Loop, 0) ->
    ok;
drain(Loop, Left) ->
    {_, Events} = tokamak_loop:drain(Loop, rand:uniform(50)),
    true = is_list(Events),
    drain(Loop, Left - 1).

poll(Loop) ->
    Events = tokamak_loop:poll(Loop, rand:uniform(3) - 1),
    true = is_list(Events).

%% The loop's own process is killed under its users.
killed_loops(_File) ->
    Loop = tokamak_test:new_loop(options()),
    Pipes = [watched(Loop, Id) || Id <- lists:seq(1, 3)],
    Reference = tokamak_loop:register(Loop, 20, self()),
    #{owner := Owner} = tokamak_loop:info(Loop),
    feed(Loop, Pipes),
    ok = tokamak_test:kill(Owner),
    ok = closed(Reference),
    {error, closed} = tokamak_loop:poll(Loop, ?PATIENCE),
    idle().

closed(Reference) ->
    receive
        {tokamak, Reference, closed} -> ok;
        {tokamak, Reference, {event, _, _, _}} -> closed(Reference)
    after ?PATIENCE -> error(not_closed)
    end.

handlers(_File) ->
    Loop = tokamak_test:new_loop(options()),
    Reference = tokamak_loop:register(Loop, 10, self()),
    Handlers = [spawn(fun() -> slow_handler(Loop, Id) end) || Id <- lists:seq(11, 14)],
    Sent = post_all(Loop, [10, 11, 12, 13, 14, 15], 300),
    ok = handled(Reference, Sent),
    [exit(Handler, kill) || Handler <- Handlers, rand:uniform(2) =:= 1],
    poll(Loop),
    ok = tokamak_loop:destroy(Loop),
    ok = closed(Reference).

%% Ends with the loop, or when it is killed.
slow_handler(Loop, Id) ->
    case tokamak_loop:register(Loop, Id, self()) of
        {error, closed} -> ok;
        Reference -> take_slowly(Reference)
    end.

take_slowly(Reference) ->
    receive
        {tokamak, Reference, closed} ->
            ok;
        {tokamak, Reference, _} ->
            idle(),
            take_slowly(Reference)
    end.

%% What was posted to the first id; a full loop refuses.
post_all(Loop, [First | _] = Ids, Count) ->
    Posts = [{Id, N} || N <- lists:seq(1, Count), Id <- Ids],
    [N || {Id, N} <- Posts, tokamak_loop:post(Loop, Id, user, N) =:= ok, Id =:= First].

handled(_Reference, []) ->
    ok;
handled(Reference, [N | Rest]) ->
    receive
        {tokamak, Reference, {event, 10, user, N}} -> handled(Reference, Rest)
    after ?PATIENCE -> error({not_handled, N})
    end.

%% Its mailbox gets so long that the loop holds back.
lagging_handlers(_File) ->
    Loop = tokamak_test:new_loop(#{backend => backend(), max_queue => 3000}),
    Owner = self(),
    Handler = spawn(fun() -> outlive(Owner) end),
    _ = tokamak_loop:register(Loop, 1, Handler),
    _ = post_all(Loop, [1], 6000),
    idle(),
    exit(Handler, kill),
    ok = tokamak_loop:destroy(Loop).

%% Takes no other message.
outlive(Pid) ->
    Monitor = monitor(process, Pid),
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end.

timers(_File) ->
    {ok, Loop} = tokamak_loop:open(#{backend => backend(), max_timers => 1000}),
    Started = [tokamak_loop:start_timer(Loop, rand:uniform(2000), N) || N <- lists:seq(1, 1200)],
    Timers = [Timer || Timer <- Started, is_integer(Timer)],
    true = length(Timers) >= 1000,
    [_ = tokamak_loop:cancel_timer(Loop, Timer) || Timer <- Timers, rand:uniform(2) =:= 1],
    drain(Loop, 3),
    idle().

descriptors(File) ->
    Pipes = [tokamak_fd:pipe() || _ <- lists:seq(1, 50)],
    [{ok, 3} = tokamak_fd:write(Write, <<"abc">>) || {ok, _, Write} <- Pipes],
    [{ok, <<"ab">>} = tokamak_fd:read(Read, 2) || {ok, Read, _} <- Pipes],
    Heir = spawn(fun() -> idle() end),
    [_ = tokamak_fd:controlling_process(Read, Heir) || {ok, Read, _} <- lists:sublist(Pipes, 10)],
    {ok, Opened} = tokamak_fd:open(File, [read]),
    {ok, _} = tokamak_fd:read(Opened, 10),
    [ok = tokamak_fd:close(Write) || {ok, _, Write} <- Pipes, rand:uniform(2) =:= 1],
    idle().

submissions(_File) ->
    Loop = tokamak_test:new_loop(options()),
    Calls = [{N, op(later), [N, rand:uniform(1000)]} || N <- lists:seq(1, 40)],
    Expected =
        case tokamak_loop:submit_many(Loop, Calls) of
            ok -> 40;
            {error, overloaded} -> 0
        end,
    allow([overloaded], tokamak_loop:submit(Loop, 41, op(never), [41])),
    ok = results(Loop, Expected),
    ok = tokamak_loop:destroy(Loop).

results(_Loop, 0) ->
    ok;
results(Loop, Left) ->
    [_ | _] = Events = tokamak_loop:poll(Loop, ?PATIENCE),
    results(Loop, Left - length([N || {N, async_result, N} <- Events])).

router(_File) ->
    Loop = tokamak_router:loop_for(self()),
    Id = tokamak_id:next(),
    Reference = tokamak_loop:register(Loop, Id, self()),
    Sent = [N || N <- lists:seq(1, 100), tokamak_loop:post(Loop, Id, user, N) =:= ok],
    [
        receive
            {tokamak, Reference, {event, Id, user, N}} -> ok
        after ?PATIENCE -> error({not_handled, N})
        end
     || N <- Sent
    ],
    ok = tokamak_loop:unregister(Loop, Id),
    idle().

%% Pools and progress

native_pools(_File) ->
    Pool = tokamak_pool:start({op, op(endless)}, [rand:uniform(1000)], #{workers => 4, window => 2, progress => soak}),
    case batches(Pool, rand:uniform(50)) of
        ended -> ok;
        open -> ok = tokamak_pool:cancel(Pool)
    end,
    idle().

function_pools(_File) ->
    Handle = fun
        (N) when N rem 13 =:= 0 -> error(unlucky);
        (N) -> {ok, N, [Child || Child <- [2 * N, 2 * N + 1], Child < 2000]}
    end,
    Pool = tokamak_pool:start(Handle, [1], #{workers => 3, window => 2, on_error => skip}),
    batches(Pool, rand:uniform(30)),
    idle().

%% Takes batches slowly: `open' when there are more.
batches(_Pool, 0) ->
    open;
batches(Pool, Left) ->
    receive
        {tokamak, Pool, {results, [_ | _]}} ->
            ok = tokamak_pool:ack(Pool, 1),
            batches(Pool, Left - 1);
        {tokamak, Pool, {finished, _}} ->
            ended;
        {tokamak, Pool, {error, overloaded}} ->
            ended
    after 50 -> open
    end.

progress(_File) ->
    Keys = [{soak, rand:uniform(?KEYS)} || _ <- lists:seq(1, 10)],
    [ok = tokamak_progress:report(Key, N, 100) || N <- lists:seq(1, 100), Key <- Keys],
    idle().

subscribers(_File) ->
    Key = lists:nth(rand:uniform(2), [all, {soak, rand:uniform(?KEYS)}]),
    Reference = tokamak_progress:subscribe(Key, #{interval => rand:uniform(200)}),
    updates(Reference, rand:uniform(20)),
    rand:uniform(2) =:= 1 andalso (ok = tokamak_progress:unsubscribe(Reference)),
    flush().

updates(_Reference, 0) ->
    ok;
updates(Reference, Left) ->
    receive
        {tokamak, Reference, {progress, _, #{done := Done, total := Total}}} when Done =< Total ->
            updates(Reference, Left - 1)
    after 20 -> ok
    end.

%% Subprocesses and sockets

subprocesses(_File) ->
    Status = rand:uniform(256) - 1,
    Script = "cat; exit " ++ integer_to_list(Status),
    Input = binary:copy(<<"input\n">>, rand:uniform(20_000)),
    {ok, #{status := Status, stdout := Input}} =
        tokamak_subprocess:run(["sh", "-c", Script], #{stdin => Input, timeout => ?PATIENCE}),
    idle().

%% Full pipes in both directions, grandchildren, and an owner that leaves or stops.
slow_subprocesses(_File) ->
    {ok, P} = tokamak_subprocess:start(["sh", "-c", "sleep 1000 & yes"], #{kill_timeout => 100}),
    {ok, {stdout, _}} = tokamak_subprocess:recv(P, ?PATIENCE),
    ok = tokamak_subprocess:active(P, once),
    receive
        {tokamak, P, {stdout, _}} -> idle()
    after ?PATIENCE -> error(no_output)
    end,
    rand:uniform(2) =:= 1 andalso (ok = tokamak_subprocess:stop(P)),
    flush().

sockets(_File) ->
    Loop = tokamak_test:new_loop(options()),
    {ok, Listening} = gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listening),
    {ok, Client} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    {ok, Server} = gen_tcp:accept(Listening, ?PATIENCE),
    ok = tokamak_loop:adopt(Loop, Server, 1),
    ok = gen_tcp:send(Client, binary:copy(<<"x">>, 10_000)),
    [_ | _] = tokamak_loop:poll(Loop, ?PATIENCE),
    idle(),
    [ok = gen_tcp:close(Socket) || Socket <- [Client, Listening]],
    ok = tokamak_loop:destroy(Loop).

%% What all use

op(Name) ->
    call_fixture:op(Name).

allow(Reasons, Result) ->
    allow(Reasons, Result, any).

%% A result that is expected, or an error that is allowed.
allow(_Reasons, {ok, Result}, Expected) when Expected =:= any; Result =:= Expected -> ok;
allow(_Reasons, ok, any) -> ok;
allow(Reasons, {error, Reason} = Error, _Expected) ->
    lists:member(Reason, Reasons) orelse error({not_allowed, Error}),
    ok.

%% A consumer that takes its time.
idle() ->
    receive
    after rand:uniform(10) - 1 -> ok
    end.

flush() ->
    receive
        _ -> flush()
    after 0 -> ok
    end.
