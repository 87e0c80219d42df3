%% SPDX-License-Identifier: Apache-2.0
%% A thousand rounds of killing at random, under load: nobody hangs, nothing is left.
-module(tokamak_loop_stampede_tests).

-include_lib("eunit/include/eunit.hrl").

-import(tokamak_test, [quietly/1]).

-define(ROUNDS, 1000).
%% How long anybody may take to notice a death, in milliseconds.
-define(DEADLINE, 1000).
%% What the VM may grow by in all rounds.
-define(MEMORY_BOUND, 50_000_000).

stampede_test_() ->
    tokamak_test:with_application(
        tokamak_test:cases(180, [
            {"killing loops, owners, pollers and handlers a thousand times leaves nothing", fun stampede/0}
        ])
    ).

stampede() ->
    Seed = rand:seed_s(exsss),
    _ = rand:seed(Seed),
    Rounds = fun(Count) ->
        quietly(fun() -> [in_round(N, Seed) || N <- lists:seq(1, Count)] end)
    end,
    %% What is made once and kept is there after some rounds.
    _ = Rounds(50),
    Before = tokamak_test:resources(),
    Memory = tokamak_test:rss(),
    Kinds = Rounds(?ROUNDS),
    tokamak_test:given_back(Before),
    [true = erlang:garbage_collect(Process) || Process <- processes()],
    Grown = tokamak_test:rss() - Memory,
    ?debugFmt("~w; memory grew by ~.1f MB", [count(Kinds), Grown / 1.0e6]),
    ?assert(Grown < ?MEMORY_BOUND),
    [serves(tokamak_router:loop_for(Key)) || Key <- lists:seq(1, 20)].

count(Kinds) ->
    Count = fun(Kind, Counts) -> maps:update_with(Kind, fun(N) -> N + 1 end, 1, Counts) end,
    maps:to_list(lists:foldl(Count, #{}, Kinds)).

in_round(N, Seed) ->
    Kind = pick([native, select, router, raw_native, raw_select]),
    Victims = pick([[loop], [owner], [poller], [handler], [poller, handler], [owner, loop, poller, handler]]),
    Delay = pick([0, 0, 1, 2, 3]),
    try
        tokamak_test:in_process(fun() -> one_round(Kind, Victims, Delay) end)
    catch
        Class:Reason:Stack ->
            erlang:raise(Class, {Reason, {round, N, Kind, Victims, Delay, rand:export_seed_s(Seed)}}, Stack)
    end,
    {Kind, hd(Victims), length(Victims)}.

pick(List) ->
    lists:nth(rand:uniform(length(List)), List).

one_round(Kind, Victims, Delay) ->
    [Polled, Handled] = [tokamak_id:next(), tokamak_id:next()],
    {Owner, Loop, Pipes} = start_owner(Kind, [Polled, Handled]),
    #{owner := Process} = tokamak_loop:info(Loop),
    Actors = start_actors(Kind, Loop, Polled, Handled, Pipes),
    receive
    after Delay -> ok
    end,
    All = Actors#{loop => Process, owner => Owner},
    Killed = [Victim || Victim <- Victims, is_map_key(Victim, All)],
    [exit(maps:get(Victim, All), kill) || Victim <- Killed],
    IsEnded = lists:member(loop, Killed) orelse (is_raw(Kind) andalso lists:member(owner, Killed)),
    case IsEnded of
        true -> loop_has_ended(Loop, Actors, Killed);
        false -> loop_lives(Kind, Loop, Actors, Killed, Pipes)
    end,
    exit(Owner, kill),
    ends(Owner).

is_raw(Kind) ->
    Kind =:= raw_native orelse Kind =:= raw_select.

%% The owner has descriptors, and its loop where that is a raw one; it writes all the time.
start_owner(Kind, Ids) ->
    Test = self(),
    {Owner, _} = spawn_monitor(fun() ->
        Loop = make_loop(Kind),
        Pipes = [{Id, tokamak_test:pipe()} || Id <- Ids],
        Test ! {self(), Loop, Pipes},
        Poll = is_raw(Kind),
        write_for_ever(Loop, Poll, Pipes)
    end),
    receive
        {Owner, Loop, Pipes} -> {Owner, Loop, Pipes}
    after 5000 -> erlang:error(no_owner)
    end.

make_loop(raw_native) ->
    tokamak_test:raw_loop(native);
make_loop(raw_select) ->
    tokamak_test:raw_loop(select);
make_loop(router) ->
    router_loop(self());
make_loop(Backend) ->
    {ok, Loop} = tokamak_loop:new(#{backend => Backend, max_queue => 1000}),
    Loop.

%% A loop of the router that lives: the last one may be under replacement.
router_loop(Key) ->
    Loop = tokamak_router:loop_for(Key),
    case tokamak_loop:info(Loop) of
        #{owner := Process} ->
            case is_process_alive(Process) of
                true -> Loop;
                false -> router_loop(Key)
            end;
        {error, closed} ->
            router_loop(Key)
    end.

write_for_ever(Loop, Poll, Pipes) ->
    [tokamak_fd:write(Write, <<"x">>) || {_, {_, Write}} <- Pipes],
    case Poll of
        true -> read_all(tokamak_loop:poll(Loop, 1), Pipes);
        false ->
            receive
            after 1 -> ok
            end
    end,
    write_for_ever(Loop, Poll, Pipes).

read_all({error, closed}, _Pipes) ->
    exit(closed);
read_all(Events, Pipes) ->
    [tokamak_fd:read(Read, 100) || {Id, read, _} <- Events, {_, {Read, _}} <- [lists:keyfind(Id, 1, Pipes)]],
    ok.

%% Processes that use the loop until it is closed, each of which then ends with the reason `closed'.
start_actors(Kind, Loop, Polled, Handled, Pipes) ->
    [_ = tokamak_loop:add_reader(Loop, Read, Id) || {Id, {Read, _}} <- Pipes],
    Posters = #{poster => start(fun() -> post_for_ever(Loop, [Polled, Handled], 0) end)},
    case is_raw(Kind) of
        true ->
            Posters;
        false ->
            Posters#{
                poller => start(fun() -> poll_for_ever(Loop, Pipes) end),
                handler => start(fun() ->
                    handle_for_ever(tokamak_loop:register(Loop, Handled, self()), Pipes)
                end)
            }
    end.

start(Fun) ->
    element(1, spawn_monitor(Fun)).

post_for_ever(Loop, Ids, N) ->
    [accepted(tokamak_loop:post(Loop, Id, user, N)) || Id <- Ids],
    N rem 100 =:= 0 andalso accepted(tokamak_loop:start_timer(Loop, N rem 3, hd(Ids))),
    post_for_ever(Loop, Ids, N + 1).

accepted({error, closed}) -> exit(closed);
accepted({error, overloaded}) -> erlang:yield();
accepted(_) -> ok.

poll_for_ever(Loop, Pipes) ->
    case tokamak_loop:poll(Loop, infinity) of
        {error, busy} -> erlang:yield();
        Result -> read_all(Result, Pipes)
    end,
    poll_for_ever(Loop, Pipes).

handle_for_ever({error, closed}, _Pipes) ->
    exit(closed);
handle_for_ever(Reference, Pipes) ->
    receive
        {tokamak, Reference, {event, Id, read, _}} -> read_all([{Id, read, undefined}], Pipes);
        {tokamak, Reference, {event, _, _, _}} -> ok;
        {tokamak, Reference, closed} -> exit(closed)
    end,
    handle_for_ever(Reference, Pipes).

loop_has_ended(Loop, Actors, Killed) ->
    [
        case {ends(Pid), lists:member(Actor, Killed)} of
            {closed, _} -> ok;
            {killed, true} -> ok;
            {Reason, _} -> erlang:error({wrong_end, Actor, Reason})
        end
     || {Actor, Pid} <- maps:to_list(Actors)
    ],
    ?assertEqual({error, closed}, tokamak_loop:info(Loop)).

%% Everybody here is monitored from the start.
ends(Pid) ->
    receive
        {'DOWN', _, process, Pid, Reason} -> Reason
    after ?DEADLINE -> erlang:error({hangs, process_info(Pid, [current_stacktrace, messages])})
    end.

loop_lives(Kind, Loop, Actors, Killed, Pipes) ->
    [killed = ends(maps:get(Actor, Actors)) || Actor <- Killed, is_map_key(Actor, Actors)],
    Rest = maps:without(Killed, Actors),
    ok = stop(poster, Rest),
    case lists:member(owner, Killed) of
        true -> [tokamak_test:wait_for({error, closed}, fun() -> read(Pipe) end) || Pipe <- Pipes];
        false -> ok
    end,
    case is_raw(Kind) of
        true ->
            ok;
        false ->
            ok = stop(poller, Rest),
            serves(Loop),
            end_loop(Kind, Loop, maps:with([handler], Rest))
    end.

%% Kills an actor that has survived.
stop(Actor, Actors) ->
    case Actors of
        #{Actor := Pid} ->
            exit(Pid, kill),
            killed = ends(Pid),
            ok;
        _ ->
            ok
    end.

read({_, {Read, _}}) ->
    case tokamak_fd:read(Read, 100) of
        {error, closed} = Closed -> Closed;
        Other -> {still, Other}
    end.

serves(Loop) ->
    Id = tokamak_id:next(),
    Until = erlang:monotonic_time(millisecond) + ?DEADLINE,
    ok = post_until(Loop, Id, Until),
    ok = poll_until(Loop, {Id, user, Id}, Until).

post_until(Loop, Id, Until) ->
    case tokamak_loop:post(Loop, Id, user, Id) of
        ok ->
            ok;
        {error, overloaded} ->
            in_time(Loop, Until),
            _ = tokamak_loop:poll(Loop, 0),
            post_until(Loop, Id, Until)
    end.

poll_until(Loop, Event, Until) ->
    in_time(Loop, Until),
    case tokamak_loop:poll(Loop, 100) of
        {error, busy} ->
            poll_until(Loop, Event, Until);
        Events ->
            case lists:member(Event, Events) of
                true -> ok;
                false -> poll_until(Loop, Event, Until)
            end
    end.

in_time(Loop, Until) ->
    erlang:monotonic_time(millisecond) < Until orelse
        erlang:error({does_not_serve, tokamak_loop:info(Loop)}).

%% The loops of the router stay; a handler that is killed is forgotten.
end_loop(router, Loop, Handlers) ->
    [exit(Handler, kill) || Handler <- maps:values(Handlers)],
    tokamak_test:wait_until(fun() -> is_free(tokamak_loop:info(Loop)) end);
end_loop(_Kind, Loop, Handlers) ->
    ok = tokamak_loop:destroy(Loop),
    [?assertEqual(closed, ends(Handler)) || Handler <- maps:values(Handlers)].

is_free(#{handlers := Handlers}) -> Handlers =:= 0;
is_free({error, closed}) -> true.
