%% SPDX-License-Identifier: Apache-2.0
%% Calls of every public function with some of their arguments replaced by random terms: each returns, waits, or
%% raises `badarg' or `not_owner' with an explanation. The seed is in the error.
-module(tokamak_garbage_calls_tests).

-include_lib("eunit/include/eunit.hrl").

-export([throw_all/1]).

-define(CALLS, 40_000).
-define(THROWERS, 2).
%% So many calls, then the process dies and leaves what it has.
-define(LIFE, 400).
%% A call that waits longer, in milliseconds, is one that may wait.
-define(WAIT, 200).
-define(ENGINE, tokamak_test_engine).

garbage_test_() ->
    tokamak_test:cases(120, [{"garbage is refused with an explanation", fun garbage/0}]).

garbage() ->
    Count = tokamak_garbage:in_peer(?MODULE, throw_all, 120),
    ?debugFmt("~b calls returned or raised", [Count]).

%% @doc In the other VM: how many calls came to an end, and those that raised what they should not.
throw_all(Seed) ->
    Counter = counters:new(1, []),
    Throwers = [
        spawn_monitor(fun() -> exit({wrong, lives(?CALLS div ?THROWERS, Seed + N, Counter, [])}) end)
     || N <- lists:seq(1, ?THROWERS)
    ],
    Wrong = [
        receive
            {'DOWN', Monitor, process, Thrower, {wrong, Calls}} -> Calls
        end
     || {Thrower, Monitor} <- Throwers
    ],
    {counters:get(Counter, 1), lists:sublist(lists:append(Wrong), 10)}.

lives(Left, _Seed, _Counter, Wrong) when Left =< 0 ->
    Wrong;
lives(Left, Seed, Counter, Wrong) ->
    Done = counters:new(1, []),
    {Thrower, Monitor} = spawn_monitor(fun() ->
        _ = rand:seed(exsss, {Seed, Left, 0}),
        exit({wrong, throw_calls(?LIFE, handles(), Done, [])})
    end),
    More = watch(Thrower, Monitor, Done, -1),
    counters:add(Counter, 1, counters:get(Done, 1)),
    lives(Left - max(1, counters:get(Done, 1)), Seed, Counter, More ++ Wrong).

%% A thrower whose call waits is killed.
watch(Thrower, Monitor, Done, Before) ->
    receive
        {'DOWN', Monitor, process, Thrower, {wrong, Calls}} -> Calls;
        {'DOWN', Monitor, process, Thrower, killed} -> [];
        {'DOWN', Monitor, process, Thrower, Reason} -> [{thrower_died, Reason}]
    after ?WAIT ->
        case counters:get(Done, 1) of
            Before -> exit(Thrower, kill);
            _ -> true
        end,
        watch(Thrower, Monitor, Done, counters:get(Done, 1))
    end.

throw_calls(0, _Handles, _Done, Wrong) ->
    Wrong;
throw_calls(Left, Handles, Done, Wrong) ->
    {Module, Function, Valid} = tokamak_garbage:pick_element(calls(Handles)),
    Arguments = harmless(Function, [spoil(Argument, Handles) || Argument <- Valid]),
    More =
        case is_proper_end(Module, Function, Arguments) of
            true -> Wrong;
            {false, What} -> [{Module, Function, Arguments, What} | Wrong]
        end,
    flush(),
    counters:add(Done, 1, 1),
    throw_calls(Left - 1, Handles, Done, More).

is_proper_end(Module, Function, Arguments) ->
    try apply(Module, Function, Arguments) of
        _ -> true
    catch
        error:Reason:Stack when Reason =:= badarg; Reason =:= not_owner ->
            case tokamak_error:format_error(Reason, Stack) of
                Explanation when map_size(Explanation) > 0 -> is_text(Explanation);
                _ -> {false, {not_explained, Reason, Stack}}
            end;
        Class:Reason:Stack ->
            {false, {Class, Reason, Stack}}
    end.

is_text(Explanation) ->
    case [Text || Text <- maps:values(Explanation), not is_binary(unicode:characters_to_binary(Text))] of
        [] -> true;
        _ -> {false, {no_text, Explanation}}
    end.

flush() ->
    receive
        _ -> flush()
    after 0 -> ok
    end.

%% Descriptors of the VM itself are not to be read by us, and ids are not to be used up.
harmless(from_integer, [Number]) when is_integer(Number), Number >= 0, Number < 1 bsl 20 ->
    [-1 - Number];
harmless(next, [Number]) when is_integer(Number), Number > 1 bsl 20 ->
    [-Number];
harmless(_Function, Arguments) ->
    Arguments.

%% Half of the arguments stay as they are.
spoil(Argument, Handles) ->
    case rand:uniform(10) of
        N when N =< 5 -> Argument;
        N when N =< 7 -> tokamak_garbage:term(element(1, Handles));
        _ -> spoil_within(Argument, Handles)
    end.

spoil_within(Map, Handles) when map_size(Map) > 0 ->
    Key = lists:nth(rand:uniform(map_size(Map)), maps:keys(Map)),
    Map#{Key := spoil(maps:get(Key, Map), Handles)};
spoil_within([First | Rest], Handles) ->
    case rand:uniform(3) of
        1 -> [First | spoil(Rest, Handles)];
        2 -> [spoil(First, Handles) | Rest];
        3 -> [tokamak_garbage:term(element(1, Handles)), First | Rest]
    end;
spoil_within(Tuple, Handles) when is_tuple(Tuple), Tuple =/= {} ->
    N = rand:uniform(tuple_size(Tuple)),
    setelement(N, Tuple, spoil(element(N, Tuple), Handles));
spoil_within(_Argument, Handles) ->
    tokamak_garbage:term(element(1, Handles)).

%% What may be thrown, and what valid calls are made of.
handles() ->
    Handles = tokamak_garbage:handles(),
    {Raw, _Select, _Closed, Supervised, _Foreign, Read, Write, _ClosedFd, Fd, _File, _Table} = Handles,
    {ok, Subprocess} = tokamak_subprocess:start([<<"cat">>]),
    Named = #{
        raw => Raw,
        supervised => Supervised,
        read => Read,
        write => Write,
        fd => Fd,
        running => tokamak:async(sleep, [1_000_000]),
        done => tokamak:async(echo, [1]),
        stream => tokamak:stream(count, [1000, 1]),
        short => tokamak:stream(count, [10, 0]),
        session => tokamak:open({?ENGINE, sums}, [0]),
        pool => tokamak_pool:start(fun handle/1, [1], #{}),
        subscription => tokamak_progress:subscribe(all),
        subprocess => Subprocess
    },
    Thrown = list_to_tuple(tuple_to_list(Handles) ++ maps:values(Named)),
    {Thrown, Named}.

handle(Item) ->
    {ok, Item, []}.

calls({_Thrown, Named}) ->
    list_to_tuple(
        call_calls(Named) ++ stream_calls(Named) ++ loop_calls(Named) ++ fd_calls(Named) ++
            pool_calls(Named) ++ subprocess_calls(Named) ++ other_calls(Named)
    ).

call_calls(#{running := Running, done := Done}) ->
    Calls = [{echo, [1]}, {sleep, [0]}],
    [
        {tokamak, call, [echo, [1]]},
        {tokamak, call, [{?ENGINE, lengths}, [[[1], [2]]], #{timeout => 10}]},
        {tokamak, call, [list_dir, ["."], #{timeout => 10, node => node()}]},
        {tokamak, cast, [sleep, [0]]},
        {tokamak, async, [sleep, [0]]},
        {tokamak, async, [echo, [1], #{node => node()}]},
        {tokamak, await, [Running, 0]},
        {tokamak, await, [Done]},
        {tokamak, await_many, [[Running, Done], 0]},
        {tokamak, await_any, [[Running, Done], 0]},
        {tokamak, cancel, [Running]},
        {tokamak, gather, [Calls]},
        {tokamak, gather, [Calls, #{timeout => 10, max_concurrency => 1, mode => settle}]}
    ].

stream_calls(#{stream := Stream, short := Short, session := Session}) ->
    [
        {tokamak, stream, [count, [3, 0]]},
        {tokamak, stream, [count, [3, 0], #{window => 2}]},
        {tokamak, open, [{?ENGINE, sums}, [1]]},
        {tokamak, open, [{?ENGINE, lengths_of_pushed}, [], #{window => 2, inbox => 2}]},
        {tokamak, next, [Stream, 0]},
        {tokamak, push, [Session, 1, 0]},
        {tokamak, fold, [fun erlang:max/2, 0, Short]},
        {tokamak, close, [Stream]}
    ].

loop_calls(#{raw := Raw, supervised := Supervised, read := Read, write := Write}) ->
    Options = #{backend => select, max_queue => 10, max_timers => 10},
    [
        {tokamak_loop, new, [Options]},
        {tokamak_loop, open, [Options]},
        {tokamak_loop, destroy, [Raw]},
        {tokamak_loop, info, [Supervised]},
        {tokamak_loop, poll, [Supervised, 0]},
        {tokamak_loop, drain, [Raw]},
        {tokamak_loop, drain, [Raw, 10]},
        {tokamak_loop, add_reader, [Raw, Read, 1]},
        {tokamak_loop, remove_reader, [Raw, Read]},
        {tokamak_loop, add_writer, [Supervised, Write, 1]},
        {tokamak_loop, remove_writer, [Supervised, Write]},
        {tokamak_loop, start_timer, [Raw, 10, 1]},
        {tokamak_loop, cancel_timer, [Raw, 1]},
        {tokamak_loop, register, [Supervised, 1, self()]},
        {tokamak_loop, unregister, [Supervised, 1]},
        {tokamak_loop, post, [Raw, 1, user, data]},
        {tokamak_loop, submit, [Raw, 1, echo, [1]]},
        {tokamak_loop, submit_many, [Raw, [{1, echo, [1]}, {2, sleep, [0]}]]},
        {tokamak_loop, adopt, [Supervised, hd(erlang:ports()), 1]}
    ].

fd_calls(#{read := Read, write := Write, fd := Fd}) ->
    [
        {tokamak_fd, open, [<<"garbage">>, [read, write]]},
        {tokamak_fd, pipe, []},
        {tokamak_fd, from_integer, [-1]},
        {tokamak_fd, read, [Read, 10]},
        {tokamak_fd, write, [Write, [<<"x">>, "y"]]},
        {tokamak_fd, close, [Fd]},
        {tokamak_fd, controlling_process, [Fd, self()]},
        {tokamak_fd, handle_fd_event_and_reselect, [Read, read]},
        {tokamak_fd, read_and_reselect, [Read, 10]}
    ].

pool_calls(#{pool := Pool}) ->
    Options = #{
        workers => 2, on_error => skip, max_items => 10, timeout => 100, progress => key, window => 2, key => fun handle/1
    },
    Handler = fun handle/1,
    [
        {tokamak_pool, run, [Handler, [1, 2], Options]},
        {tokamak_pool, run, [{op, index_file}, ["."], maps:remove(key, Options)]},
        {tokamak_pool, fold, [Handler, [1, 2], fun erlang:max/2, 0, Options]},
        {tokamak_pool, start, [Handler, [1], Options]},
        {tokamak_pool, ack, [Pool, 1]},
        {tokamak_pool, add, [Pool, [1, 2]]},
        {tokamak_pool, close, [Pool]},
        {tokamak_pool, cancel, [Pool]}
    ].

subprocess_calls(#{subprocess := Subprocess}) ->
    Options = #{cd => ".", env => [{"A", "b"}, {<<"C">>, false}], clear_env => false, kill_timeout => 10},
    [
        {tokamak_subprocess, run, [["true", <<"x">>], Options#{stdin => [<<"x">>], timeout => 100, stderr => merge}]},
        {tokamak_subprocess, start, [["true"], Options#{stdin => null, stdout => {file, "garbage"}, stderr => null}]},
        {tokamak_subprocess, write, [Subprocess, [<<"x">>], 0]},
        {tokamak_subprocess, close_stdin, [Subprocess]},
        {tokamak_subprocess, recv, [Subprocess, 0]},
        {tokamak_subprocess, active, [Subprocess, once]},
        {tokamak_subprocess, signal, [Subprocess, sigterm]},
        {tokamak_subprocess, stop, [Subprocess]},
        {tokamak_subprocess, os_pid, [Subprocess]},
        {tokamak_subprocess, info, [Subprocess]}
    ].

other_calls(#{subscription := Subscription}) ->
    [
        {tokamak_id, next, [3]},
        {tokamak_router, loop_for, [key]},
        {tokamak_progress, report, [key, 1, 2]},
        {tokamak_progress, subscribe, [key]},
        {tokamak_progress, subscribe, [key, #{interval => 10}]},
        {tokamak_progress, unsubscribe, [Subscription]}
    ].
