%% SPDX-License-Identifier: Apache-2.0
%% Exactly one end and nothing after it: a state machine of calls that are started, awaited, cancelled, waited for
%% too shortly and received by hand, beside callers that are killed, overload, and an application that stops and
%% starts again, with random delays.
-module(tokamak_call_property_tests).
-behaviour(proper_statem).

-include_lib("eunit/include/eunit.hrl").
-import(call_fixture, [op/1]).
-import(proper_types, [integer/0, list/1, frequency/1, range/2, resize/2]).

-export([initial_state/0, command/1, precondition/2, postcondition/3, next_state/3]).
-export([start/3, await/2, await_many/2, await_any/2, cancel/1, take/1]).
-export([call/4, gather/2, stream/2, session/1, cast/1, kill_callers/2, restart/0]).

-define(OPERATIONS, 100000).
-define(PATIENCE, 5000).
%% Most of it is PropEr's: on two cores with other work it takes minutes.
-define(TIMEOUT, 900).
%% Calls in flight; so few that calls are refused now and then.
-define(PLACES, 20).

%% The calls of this process: their references, with what they end with, until that was taken.
-record(model, {open = [] :: [{term(), term()}], closed = [] :: [term()]}).

property_test_() ->
    Environment = #{max_in_flight => ?PLACES, drain_timeout => 1, worker_threads => 2},
    call_fixture:tests(Environment, [{timeout, ?TIMEOUT, fun every_call_has_one_end_and_nothing_after_it/0}]).

every_call_has_one_end_and_nothing_after_it() ->
    Counter = counters:new(1, []),
    %% A first round, so that all that stays is there.
    check(Counter, 1000),
    Before = resident_mib(),
    check(Counter, ?OPERATIONS),
    call_fixture:until(fun() -> resident_mib() - Before < 64 end).

%% Without the garbage of PropEr, which is this process's, and tens of megabytes.
resident_mib() ->
    erlang:garbage_collect(),
    call_fixture:resident_mib().

check(Counter, Operations) ->
    Options = [{numtests, 50}, noshrink, quiet, {max_size, 40}],
    ?assert(proper:quickcheck(property(Counter), Options)),
    case counters:get(Counter, 1) < Operations of
        true -> check(Counter, Operations);
        false -> ok
    end.

property(Counter) ->
    %% The functions behind PropEr's macros: its header is not everywhere that it is.
    proper:forall(
        proper_statem:more_commands(8, proper_statem:commands(?MODULE)),
        fun(Commands) -> holds(Commands, Counter) end
    ).

%% PropEr does not show what is raised.
holds(Commands, Counter) ->
    try
        run(Commands, Counter)
    catch
        Class:Reason:Stack ->
            ?debugFmt("~p: ~p~n~p~n~p", [Class, Reason, Stack, process_info(self(), messages)]),
            false
    end.

run(Commands, Counter) ->
    {History, #model{open = Open}, Result} = proper_statem:run_commands(?MODULE, Commands),
    counters:add(Counter, 1, length(History)),
    [ok = tokamak:cancel(Ref) || {Ref, _} <- Open],
    tokamak_test:wait_for(0, fun call_fixture:in_flight/0),
    Messages = process_info(self(), messages),
    Good = Result =:= ok andalso Messages =:= {messages, []},
    Good orelse ?debugFmt("~p after ~p~n~p", [Result, lists:nthtail(max(0, length(History) - 3), History), Messages]),
    Good.

%%% The commands

initial_state() ->
    #model{}.

command(Model) ->
    frequency([{300, command_of_calls(Model)}, {1, {call, ?MODULE, restart, []}}]).

command_of_calls(#model{open = Open, closed = Closed}) ->
    frequency(
        [
            {20, {call, ?MODULE, start, [kind(), integer(), delay()]}},
            {5, {call, ?MODULE, call, [kind(), integer(), delay(), patience()]}},
            {2, {call, ?MODULE, gather, [resize(8, list(integer())), delay()]}},
            {2, {call, ?MODULE, stream, [range(0, 40), range(0, 50)]}},
            {2, {call, ?MODULE, session, [range(0, 5)]}},
            {2, {call, ?MODULE, cast, [delay()]}},
            {2, {call, ?MODULE, kill_callers, [range(1, 4), delay()]}}
        ] ++
            [
                {Weight, {call, ?MODULE, Name, [one_of(Open) | Args]}}
             || Open =/= [], {Weight, Name, Args} <- [{8, await, [patience()]}, {5, cancel, []}, {5, take, []}]
            ] ++
            [
                {2, {call, ?MODULE, Name, [some_of(Open), patience()]}}
             || Open =/= [], Name <- [await_many, await_any]
            ] ++
            [
                {2, {call, ?MODULE, Name, [{one_of(Closed), closed} | Args]}}
             || Closed =/= [], {Name, Args} <- [{await, [patience()]}, {cancel, []}]
            ]
    ).

kind() ->
    frequency([
        {3, later},
        {3, later_in_runtime},
        {4, yields},
        {4, yields_eagerly},
        {1, block},
        {1, fails},
        {1, panics},
        {1, panics_eagerly},
        {1, unencodable},
        {1, unknown}
    ]).

%% Microseconds; those of the runtime are whole milliseconds. Shorter delays are some turns through its queue.
delay() ->
    frequency([{25, 0}, {1, range(1, 3000)}]).

%% Milliseconds.
patience() ->
    frequency([{2, 0}, {2, range(1, 3)}, {3, ?PATIENCE}]).

%% Numbers are drawn, not members: PropEr takes long to make a type of each member, for each command.
one_of(List) ->
    proper_types:bind(range(1, length(List)), fun(N) -> lists:nth(N, List) end, false).

%% At least the first one.
some_of([First | Rest]) ->
    Keep = fun(Flags) -> [First | [Call || {N, Call} <- lists:enumerate(0, Rest), Flags band (1 bsl N) =/= 0]] end,
    proper_types:bind(range(0, (1 bsl length(Rest)) - 1), Keep, false).

precondition(_Model, _Command) ->
    true.

operation(later, Value, Delay) -> {op(later), [Value, Delay]};
operation(later_in_runtime, Value, Delay) -> {op(later_in_runtime), [Value, Delay]};
operation(yields, Value, _Delay) -> {op(yields), [abs(Value) * 10]};
operation(yields_eagerly, Value, _Delay) -> {op(yields_eagerly), [abs(Value) * 10]};
operation(block, _Value, Delay) -> {op(block), [0, Delay div 1000]};
operation(fails, _Value, _Delay) -> {op(fails), [3]};
operation(panics, _Value, _Delay) -> {op(panics), [<<"p">>]};
operation(panics_eagerly, _Value, _Delay) -> {op(panics_eagerly), [<<"p">>]};
operation(unencodable, _Value, _Delay) -> {op(unencodable), []};
operation(unknown, _Value, _Delay) -> {op(unknown), []}.

%% What a call ends with, if nothing comes between.
end_of(later, Value) -> {ok, Value};
end_of(later_in_runtime, Value) -> {ok, Value};
end_of(yields, Value) -> {ok, abs(Value) * 10};
end_of(yields_eagerly, Value) -> {ok, abs(Value) * 10};
end_of(block, _Value) -> {ok, ok};
end_of(fails, _Value) -> {error, {exhausted, <<"no more">>}};
end_of(panics, _Value) -> {error, {panic, <<"p">>}};
end_of(panics_eagerly, _Value) -> {error, {panic, <<"p">>}};
end_of(unencodable, _Value) -> {error, {encode, <<"in the encoder">>}};
end_of(unknown, _Value) -> {error, {unknown_operation, op(unknown)}}.

start(Kind, Value, Delay) ->
    {Op, Args} = operation(Kind, Value, Delay),
    tokamak:async(Op, Args).

await({Ref, _}, Patience) ->
    tokamak:await(Ref, Patience).

await_many(Calls, Patience) ->
    tokamak:await_many([Ref || {Ref, _} <- Calls], Patience).

%% The others are cancelled, so that the model knows where they stand.
await_any(Calls, Patience) ->
    Refs = [Ref || {Ref, _} <- Calls],
    Any = tokamak:await_any(Refs, Patience),
    lists:foreach(fun tokamak:cancel/1, Refs),
    Any.

cancel({Ref, _}) ->
    tokamak:cancel(Ref).

take({Ref, _}) ->
    receive
        {tokamak, Ref, End} -> End
    after ?PATIENCE -> nothing
    end.

call(Kind, Value, Delay, Patience) ->
    {Op, Args} = operation(Kind, Value, Delay),
    tokamak:call(Op, Args, #{timeout => Patience}).

gather(Values, Delay) ->
    tokamak:gather([{op(later_in_runtime), [Value, Delay]} || Value <- Values]).

stream(Count, Take) ->
    case tokamak:stream(count, [Count, 0], #{window => 4}) of
        {error, _} = Error ->
            Error;
        Stream ->
            Items = [tokamak:next(Stream, ?PATIENCE) || _ <- lists:seq(1, Take)],
            ok = tokamak:close(Stream),
            {items, Items}
    end.

session(Pushes) ->
    case tokamak:open(op(sums), [0], #{inbox => 1, window => 1}) of
        {error, _} = Error ->
            Error;
        Session ->
            Results = [tokamak:push(Session, N, 0) || N <- lists:seq(1, Pushes)],
            ok = tokamak:close(Session),
            {pushed, Results}
    end.

cast(Delay) ->
    tokamak:cast(op(later_in_runtime), [cast, Delay]).

%% Callers that die with calls in flight.
kill_callers(Count, Delay) ->
    Callers = [spawn_monitor(fun() -> calls_until_killed(Delay) end) || _ <- lists:seq(1, Count)],
    _ = tokamak:call(op(later_in_runtime), [wait, Delay], #{timeout => ?PATIENCE}),
    [
        begin
            exit(Pid, kill),
            receive
                {'DOWN', Monitor, process, Pid, Reason} -> Reason
            end
        end
     || {Pid, Monitor} <- Callers
    ].

calls_until_killed(Delay) ->
    _ = tokamak:async(op(never), [0]),
    _ = tokamak:async(op(later), [1, Delay]),
    _ = tokamak:call(op(never_eagerly), [0], #{timeout => ?PATIENCE}),
    calls_until_killed(Delay).

restart() ->
    ok = application:stop(tokamak),
    application:start(tokamak).

%%% The model

postcondition(_Model, {call, _, start, _}, Ref) -> is_reference(Ref);
postcondition(_Model, {call, _, await, [{_, closed}, _]}, End) -> End =:= {error, closed};
postcondition(_Model, {call, _, await, [{_, Expected}, Patience]}, End) -> is_end(End, Expected, Patience);
postcondition(_Model, {call, _, await_many, [Calls, Patience]}, Ends) ->
    length(Ends) =:= length(Calls) andalso
        lists:all(fun({{_, Expected}, End}) -> is_end(End, Expected, Patience) end, lists:zip(Calls, Ends));
postcondition(_Model, {call, _, await_any, [_, Patience]}, {error, timeout}) -> Patience < ?PATIENCE;
postcondition(_Model, {call, _, await_any, [Calls, Patience]}, {Ref, End}) ->
    {Ref, Expected} = lists:keyfind(Ref, 1, Calls),
    is_end(End, Expected, Patience);
postcondition(_Model, {call, _, cancel, _}, Result) -> Result =:= ok;
postcondition(_Model, {call, _, take, [{_, Expected}]}, End) -> is_end(End, Expected, ?PATIENCE);
postcondition(_Model, {call, _, call, [Kind, Value, _, Patience]}, End) ->
    is_end(End, end_of(Kind, Value), Patience);
postcondition(_Model, {call, _, gather, [Values, _]}, Result) -> Result =:= {ok, Values};
postcondition(_Model, {call, _, stream, _}, {error, Reason}) -> Reason =:= overloaded;
postcondition(_Model, {call, _, stream, [Count, Take]}, {items, Items}) ->
    All = [{ok, N} || N <- lists:seq(1, Count)] ++ [done | lists:duplicate(Take, {error, closed})],
    Items =:= lists:sublist(All, Take);
postcondition(_Model, {call, _, session, _}, {error, Reason}) -> Reason =:= overloaded;
postcondition(_Model, {call, _, session, _}, {pushed, Results}) ->
    lists:all(fun(Result) -> Result =:= ok orelse Result =:= {error, timeout} end, Results);
postcondition(_Model, {call, _, cast, _}, Result) -> Result =:= ok orelse Result =:= {error, overloaded};
postcondition(_Model, {call, _, kill_callers, _}, Reasons) -> lists:usort(Reasons) =:= [killed];
postcondition(_Model, {call, _, restart, _}, Result) -> Result =:= ok.

is_end(End, End, _Patience) -> true;
is_end({error, timeout}, _Expected, Patience) -> Patience < ?PATIENCE;
is_end({error, overloaded}, _Expected, _Patience) -> true;
%% It was in flight, or started, while the application stopped.
is_end({error, shutdown}, _Expected, _Patience) -> true;
is_end(_End, _Expected, _Patience) -> false.

next_state(#model{open = Open} = Model, Ref, {call, _, start, [Kind, Value, _]}) ->
    Model#model{open = [{Ref, end_of(Kind, Value)} | Open]};
next_state(Model, _, {call, _, Name, [{_, closed} | _]}) when Name =:= await; Name =:= cancel ->
    Model;
next_state(Model, _, {call, _, Name, [{Ref, _} | _]}) when Name =:= await; Name =:= cancel; Name =:= take ->
    close([Ref], Model);
next_state(Model, _, {call, _, Name, [Calls | _]}) when Name =:= await_many; Name =:= await_any ->
    close([Ref || {Ref, _} <- Calls], Model);
next_state(Model, _, _) ->
    Model.

close(Refs, #model{open = Open, closed = Closed} = Model) ->
    Model#model{
        open = [Call || {Ref, _} = Call <- Open, not lists:member(Ref, Refs)],
        closed = lists:sublist(Refs ++ Closed, 20)
    }.
