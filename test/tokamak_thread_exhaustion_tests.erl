%% SPDX-License-Identifier: Apache-2.0
%% No thread can be made: what needs one says so or waits, what runs works on, and when there are some again all is as
%% before. In a VM of its own, whose user may have no more threads (RLIMIT_NPROC).
-module(tokamak_thread_exhaustion_tests).

-include_lib("eunit/include/eunit.hrl").

-export([thread_count/0, start/0, start_and_use/0, stop/0, use/0, use_what_has_no_thread/0]).
-export([fail_to_start_threads/0, use_engine/0, take_thread/0, wait_for_thread/0, stop_with_calls/0]).

%% Root is not bound by the limit, so its VM runs as somebody who is nobody else, with the right to read all files.
-define(STRANGER, "54321").
-define(PEER_TIME, 60_000).
-define(ENGINE, tokamak_test_engine).
%% More threads than a start takes.
-define(MANY, 64).

thread_exhaustion_test_() ->
    tokamak_test:cases(120, [
        {"a start without threads fails with a reason, whichever thread is missing, and leaves nothing", fun starts/0},
        {"without threads what runs works on, and the rest says why it does not", fun uses/0},
        {"blocking calls wait while others have the threads", fun waits/0},
        {"without threads the application stops in time, and every call ends", fun stops/0}
    ]).

starts() ->
    with_peer(fun(Peer, Pid) ->
        %% Loads the code, and what the VM makes threads for by itself.
        ok = call(Peer, start_and_use),
        ok = call(Peer, stop),
        Threads = settled(Peer),
        Enough = start_with(Peer, Pid, 0, Threads),
        ?assert(Enough > 3),
        ok = call(Peer, use),
        ok = call(Peer, stop),
        Threads = settled(Peer)
    end).

%% Allows one thread more each time, until the start succeeds: how many it took.
start_with(Peer, Pid, More, Threads) when More < ?MANY ->
    ok = limit(Pid, in_use(Pid) + More),
    Started = call(Peer, start),
    ok = lift(Pid),
    case Started of
        ok ->
            More;
        {error, Reason} ->
            ?assertMatch({match, _}, re:run(io_lib:format("~tp", [Reason]), "Resource temporarily unavailable")),
            ?assertEqual({More, Threads}, {More, settled(Peer)}),
            start_with(Peer, Pid, More + 1, Threads)
    end.

uses() ->
    with_peer(fun(Peer, Pid) ->
        ok = call(Peer, start_and_use),
        ok = call(Peer, stop),
        ok = call(Peer, start),
        without_threads(Pid, fun() ->
            ok = call(Peer, use_what_has_no_thread),
            ok = call(Peer, fail_to_start_threads),
            ok = call(Peer, use_what_has_no_thread)
        end),
        ok = call(Peer, use),
        ok = call(Peer, use_engine),
        ok = call(Peer, stop)
    end).

waits() ->
    with_peer(fun(Peer, Pid) ->
        ok = call(Peer, start_and_use),
        ok = call(Peer, take_thread),
        without_threads(Pid, fun() -> ok = call(Peer, wait_for_thread) end),
        ok = call(Peer, use),
        ok = call(Peer, stop)
    end).

stops() ->
    with_peer(fun(Peer, Pid) ->
        ok = call(Peer, start_and_use),
        without_threads(Pid, fun() -> ok = call(Peer, stop_with_calls) end),
        ok = call(Peer, start_and_use),
        ok = call(Peer, stop)
    end).

%% The VM and its limit.

with_peer(Run) ->
    Args = lists:append([["-pa", Path] || Path <- code:get_path(), filename:pathtype(Path) =:= absolute]),
    {ok, Peer, _Node} = peer:start(#{
        connection => standard_io, exec => command(), args => Args, wait_boot => 30_000
    }),
    try
        Run(Peer, peer:call(Peer, os, getpid, []))
    after
        peer:stop(Peer)
    end.

command() ->
    [Program | Args] = as_user() ++ ["erl"],
    {os:find_executable(Program), Args}.

%% Before a command, has it run as the VM's user.
as_user() ->
    case string:trim(os:cmd("id -u")) of
        "0" ->
            Capabilities = "-all,+dac_override",
            [
                "setpriv", "--reuid", ?STRANGER, "--clear-groups",
                "--inh-caps", Capabilities, "--ambient-caps", Capabilities
            ];
        _ ->
            []
    end.

call(Peer, Function) ->
    peer:call(Peer, ?MODULE, Function, [], ?PEER_TIME).

without_threads(Pid, Run) ->
    ok = limit(Pid, 1),
    Run(),
    ok = lift(Pid).

%% The soft limit, which may go up again to the hard one.
limit(Pid, Threads) ->
    "" = prlimit(Pid, io_lib:format("--nproc=~b:", [Threads])),
    ok.

lift(Pid) ->
    Hard = prlimit(Pid, "--nproc --noheadings --output HARD"),
    "" = prlimit(Pid, ["--nproc=", Hard, ":"]),
    ok.

prlimit(Pid, Options) ->
    string:trim(os:cmd(lists:join(" ", as_user() ++ ["prlimit", "--pid", Pid, Options]))).

%% The threads of all processes of the VM's user.
in_use(Pid) ->
    User = field(Pid, "Uid"),
    {ok, Names} = file:list_dir("/proc"),
    lists:sum([
        list_to_integer(field(Name, "Threads"))
     || Name <- Names, lists:all(fun(C) -> C >= $0 andalso C =< $9 end, Name), field(Name, "Uid") =:= User
    ]).

field(Pid, Name) ->
    case file:read_file(filename:join(["/proc", Pid, "status"])) of
        {ok, Status} ->
            {match, [Value]} = re:run(Status, Name ++ ":\\s*([0-9]+)", [{capture, all_but_first, list}]),
            Value;
        {error, _} ->
            "0"
    end.

%% So many threads when those that end have ended.
settled(Peer) ->
    tokamak_test:wait_for([], fun() ->
        peer:call(Peer, tokamak_test, threads, ["tokamak-"]) --
            [Janitor || {_, "tokamak-janitor"} = Janitor <- peer:call(Peer, tokamak_test, threads, ["tokamak-"])]
    end),
    call(Peer, thread_count).

%% In the other VM.

%% @doc
thread_count() ->
    length(tokamak_test:threads("")).

%% @doc
start() ->
    tokamak_test:quietly(fun() -> application:start(tokamak) end).

%% @doc
start_and_use() ->
    ok = start(),
    ok = use(),
    use_engine().

%% @doc
stop() ->
    tokamak_test:quietly(fun() -> application:stop(tokamak) end).

%% @doc All that needs a thread, or a process of the system.
use() ->
    ok = use_what_has_no_thread(),
    {ok, Names} = tokamak:call(list_dir, ["/"]),
    true = length(Names) > 3,
    {ok, #{status := 0, stdout := <<"x\n">>}} = tokamak_subprocess:run(["echo", "x"]),
    ok.

%% @doc
use_engine() ->
    {ok, 7} = tokamak:call({?ENGINE, later}, [7, 0]),
    ok.

%% @doc What works with the threads that are there.
use_what_has_no_thread() ->
    {ok, 7} = tokamak:call(echo, [7]),
    {ok, _} = tokamak:call(sleep, [1]),
    {ok, Loop} = tokamak_loop:new(),
    Timer = tokamak_loop:start_timer(Loop, 1, 2),
    [{2, timer, Timer}] = tokamak_loop:poll(Loop, 5000),
    {ok, Read, Write} = tokamak_fd:pipe(),
    ok = tokamak_loop:add_reader(Loop, Read, 1),
    {ok, 1} = tokamak_fd:write(Write, <<"x">>),
    [{1, read, undefined}] = tokamak_loop:poll(Loop, 5000),
    {ok, <<"x">>} = tokamak_fd:read(Read, 10),
    ok = tokamak_loop:destroy(Loop),
    [ok = tokamak_fd:close(Fd) || Fd <- [Read, Write]],
    {ok, 55} = tokamak:fold(fun(N, Sum) -> N + Sum end, 0, tokamak:stream(count, [10, 0])),
    {ok, 112, _} = tokamak_pool:fold(fun collatz/1, [27], fun(_Result, Count) -> Count + 1 end, 0, #{}),
    ok.

collatz(N) ->
    {ok, N rem 2, [case N rem 2 of 0 -> N div 2; 1 -> 3 * N + 1 end]}.

%% @doc
fail_to_start_threads() ->
    Again = fun() -> tokamak:call(list_dir, ["/"]) end,
    [{error, {eagain, _}} = Again() || _ <- lists:seq(1, 3)],
    {error, {eagain, _}} = tokamak:call(resolve_host, [<<"localhost">>]),
    {ok, [{error, {eagain, _}}, {ok, 7}]} = tokamak:gather([{list_dir, ["/"]}, {echo, [7]}], #{mode => settle}),
    {ok, [{"/", {error, {eagain, _}}}], _} = tokamak_pool:run({op, index_file}, ["/"], #{}),
    {error, {eagain, _}} = tokamak:call({?ENGINE, later}, [7, 0]),
    {error, eagain} = tokamak_subprocess:run(["true"]),
    ok.

%% @doc A call that has the only thread that blocks, until it is cancelled.
take_thread() ->
    true = register(?MODULE, spawn(fun() -> hold_thread() end)),
    tokamak_test:wait_for(1, fun() ->
        #{engines := #{?ENGINE := #{blocking_running := Running}}} = tokamak:stats(),
        Running
    end).

hold_thread() ->
    Call = tokamak:async({?ENGINE, block_until_cancelled}, [1]),
    receive
        give_back -> ok = tokamak:cancel(Call)
    end.

%% @doc The next calls wait for that thread, and take it.
wait_for_thread() ->
    Waiting = [tokamak:async({?ENGINE, block}, [2, 1]) || _ <- lists:seq(1, 5)],
    ok = tokamak_test:nothing_comes(100),
    ?MODULE ! give_back,
    [{ok, ok}] = lists:usort(tokamak:await_many(Waiting, 30_000)),
    ok.

%% @doc
stop_with_calls() ->
    ok = application:set_env(tokamak, drain_timeout, 50),
    Calls = [tokamak:async(Op, [60_000]) || Op <- [sleep, {?ENGINE, never}], _ <- lists:seq(1, 100)],
    {Microseconds, ok} = timer:tc(fun stop/0),
    true = Microseconds < 4_000_000,
    [{error, shutdown}] = lists:usort(tokamak:await_many(Calls, 5_000)),
    ok.
