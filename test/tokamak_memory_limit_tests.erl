%% SPDX-License-Identifier: Apache-2.0
%% Floods in a VM that may have little more memory (RLIMIT_AS): bounds and credit hold them before it is gone. Each of
%% them would take several times that memory.
-module(tokamak_memory_limit_tests).

-include_lib("eunit/include/eunit.hrl").

-export([
    posts/0, calls/0, timers/0, streams/0, pushes/0, subprocesses/0, discoveries/0, results_of_a_pool/0, large_results/0,
    too_large_a_result/0
]).

-define(MIB, (1 bsl 20)).
%% What the VM may have beyond what it has after its start.
-define(MORE, (1024 * ?MIB)).
-define(LARGE, (64 * ?MIB)).

memory_limit_test_() ->
    tokamak_test:cases(120, [
        {"a loop that nobody polls refuses posts", fun() -> in_peer(posts) end},
        {"an engine refuses calls beyond max_in_flight", fun() -> in_peer(calls) end},
        {"a loop refuses timers beyond max_timers", fun() -> in_peer(timers) end},
        {"streams that nobody reads stop at their window", fun() -> in_peer(streams) end},
        {"an operation that takes nothing stops its pusher", fun() -> in_peer(pushes) end},
        {"subprocesses that nobody reads stop at their pipes", fun() -> in_peer(subprocesses) end},
        {"a pool that discovers without end stops at max_items", fun() -> in_peer(discoveries) end},
        {"a pool whose owner is slow stops at its window", fun() -> in_peer(results_of_a_pool) end},
        {"results of 64 MiB are given back", fun() -> in_peer(large_results) end},
        {"an allocation that fails ends the VM", fun no_memory/0}
    ]).

in_peer(Function) ->
    Peer = tokamak_test:start_peer(),
    ok = peer:call(Peer, ?MODULE, Function, [], 100_000),
    ok = peer:stop(Peer).

no_memory() ->
    _ = process_flag(trap_exit, true),
    Peer = tokamak_test:start_peer(),
    ?assertExit(_, peer:call(Peer, ?MODULE, too_large_a_result, [], 60_000)),
    receive
        {'EXIT', Peer, _} -> ok
    end.

%% In the other VM.

%% @doc
posts() ->
    limited(fun() ->
        {ok, Loop} = tokamak_loop:new(),
        Text = binary:copy(<<"x">>, 1000),
        65_536 = successes(fun() -> tokamak_loop:post(Loop, 1, user, {a, [Text]}) =:= ok end, 1_000_000),
        {error, overloaded} = tokamak_loop:post(Loop, 1, user, x),
        ok = tokamak_loop:destroy(Loop)
    end).

%% @doc
calls() ->
    limited(fun() ->
        262_144 = successes(fun() -> tokamak:cast(sleep, [600_000]) =:= ok end, 4_000_000),
        {error, overloaded} = tokamak:call(sleep, [1]),
        %% Those that are ready at once take no place.
        {ok, 1} = tokamak:call(echo, [1]),
        ok = application:stop(tokamak),
        ok = application:start(tokamak)
    end).

%% @doc
timers() ->
    limited(fun() ->
        {ok, Loop} = tokamak_loop:new(),
        1_048_576 = successes(fun() -> is_integer(tokamak_loop:start_timer(Loop, 600_000, 1)) end, 20_000_000),
        {error, overloaded} = tokamak_loop:start_timer(Loop, 1, 1),
        ok = tokamak_loop:destroy(Loop)
    end).

%% @doc
streams() ->
    limited(fun() ->
        Streams = [tokamak:stream(op(binaries), [2048, ?MIB]) || _ <- lists:seq(1, 4)],
        [{ok, _} = tokamak:next(Stream) || Stream <- Streams],
        ok = wait_until_level(),
        [Stream | _] = Streams,
        {ok, 2047} = tokamak:fold(fun count/2, 0, Stream),
        ok
    end).

%% @doc
pushes() ->
    limited(fun() ->
        Stream = tokamak:open(op(mirrors), []),
        Item = binary:copy(<<"x">>, ?MIB),
        {error, timeout} = push(Stream, Item, 4096),
        ok = tokamak:close(Stream)
    end).

push(Stream, Item, Left) when Left > 0 ->
    %% A copy, as a binary that is shared takes no memory.
    case tokamak:push(Stream, binary:copy(Item), 500) of
        ok -> push(Stream, Item, Left - 1);
        Error -> Error
    end.

%% @doc
subprocesses() ->
    limited(fun() ->
        {ok, Loop} = tokamak_loop:new(),
        {ok, Unread} = tokamak_subprocess:start(["cat", "/dev/zero"]),
        {ok, InLoop} = tokamak_subprocess:start(["cat", "/dev/zero"], #{loop => {Loop, 1}}),
        {ok, Active} = tokamak_subprocess:start(["cat", "/dev/zero"]),
        ok = tokamak_subprocess:active(Active, 10),
        ok = wait_until_level(),
        {ok, {stdout, _}} = tokamak_subprocess:recv(Unread),
        [ok = tokamak_subprocess:stop(P) || P <- [Unread, InLoop, Active]],
        ok
    end).

%% @doc
discoveries() ->
    limited(fun() ->
        Double = fun({N, Text}) -> {ok, N, [{2 * N, Text}, {2 * N + 1, Text}]} end,
        {ok, 100_000, #{refused := Refused}} =
            tokamak_pool:fold(Double, [{1, text}], fun count/2, 0, #{max_items => 100_000}),
        true = Refused > 0,
        ok
    end).

%% @doc
results_of_a_pool() ->
    limited(fun() ->
        Large = fun(_) -> {ok, binary:copy(<<"x">>, 10_000), []} end,
        Ref = tokamak_pool:start(Large, lists:seq(1, 400_000), #{window => 2}),
        ok = tokamak_pool:close(Ref),
        ok = wait_until_level(),
        ok = tokamak_pool:cancel(Ref)
    end).

%% @doc
large_results() ->
    limited(fun() ->
        50 = successes(
            fun() ->
                {ok, Result} = tokamak:call(op(bytes), [?LARGE]),
                ?LARGE = byte_size(Result),
                erlang:garbage_collect()
            end,
            50
        ),
        ok
    end).

%% @doc
too_large_a_result() ->
    limited(fun() -> tokamak:call(op(bytes), [2 * ?MORE]) end).

op(Name) ->
    {tokamak_test_engine, Name}.

count(_, N) ->
    N + 1.

successes(Try, Times) ->
    successes(Try, Times, 0).

successes(_Try, 0, Count) -> Count;
successes(Try, Left, Count) ->
    case Try() of
        true -> successes(Try, Left - 1, Count + 1);
        false -> successes(Try, Left - 1, Count)
    end.

%% All has to work afterwards, too.
limited(Flood) ->
    ok = application:load(tokamak),
    ok = application:set_env(tokamak, drain_timeout, 50),
    {ok, _} = application:ensure_all_started(tokamak),
    ok = works(),
    Limit = virtual_memory() + ?MORE,
    "" = os:cmd(io_lib:format("prlimit --pid ~s --as=~b:", [os:getpid(), Limit])),
    Result = tokamak_test:in_process(Flood),
    ok = works(),
    ok = tokamak_test:quietly(fun() -> application:stop(tokamak) end),
    Result.

works() ->
    {ok, _} = tokamak:call(list_dir, ["/"]),
    {ok, 7} = tokamak:call(op(later), [7, 100]),
    {ok, #{status := 0}} = tokamak_subprocess:run(["true"]),
    {ok, Loop} = tokamak_loop:new(),
    Timer = tokamak_loop:start_timer(Loop, 1, 1),
    [{1, timer, Timer}] = tokamak_loop:poll(Loop, 5000),
    ok = tokamak_loop:destroy(Loop).

virtual_memory() ->
    {ok, Status} = file:read_file("/proc/self/status"),
    {match, [KiB]} = re:run(Status, "VmSize:\\s*([0-9]+) kB", [{capture, all_but_first, binary}]),
    binary_to_integer(KiB) * 1024.

%% Until nothing was added for a while: then whoever produces is stopped.
wait_until_level() ->
    wait_until_level(0, 20).

wait_until_level(_, 0) ->
    ok;
wait_until_level(Before, Left) ->
    receive
    after 20 -> ok
    end,
    case tokamak_test:rss() of
        Now when abs(Now - Before) < ?MIB -> wait_until_level(Before, Left - 1);
        Now -> wait_until_level(Now, 20)
    end.
