%% SPDX-License-Identifier: Apache-2.0
%% Loops, descriptors, timers, posts and handlers against a model: random commands, and everything that the model
%% expects arrives, in order and once, at the consumer it expects.
%%
%% One process owns all, polls and is the handler of all ids. Where several outcomes are right, as for an
%% event that is under way while its descriptor is read, preconditions keep the commands apart.
-module(tokamak_loop_property_tests).
-behaviour(proper_statem).

-include_lib("eunit/include/eunit.hrl").

-export([initial_state/0, command/1, precondition/2, postcondition/3, next_state/3]).
-export([new_loop/2, destroy/1, settle/3, info/1]).
-export([make_pipe/1, write/2, read/2, close_pipe/1, watch/3, unwatch/2]).
-export([post/3, start_timer/3, cancel_timer/2, register/2, unregister/2]).

-define(SEQUENCES, 250).
-define(PATIENCE, 5000).
%% How long messages may take that must not come, in milliseconds.
-define(A_WHILE, 2).
%% A timer that does not fire within a test.
-define(FAR, 1_000_000).
%% Loops of this bound take posts only, so that the model knows when they are full.
-define(TIGHT, 3).
-define(WIDE, 10_000).

-record(loop, {
    kind :: {supervised | raw, native | select},
    bound :: pos_integer(),
    posts = [] :: [{pos_integer(), integer()}],
    near = [] :: [{pos_integer(), term()}],
    far = [] :: [term()],
    handled = [] :: [pos_integer()]
}).

-record(pipe, {
    number :: pos_integer(),
    bytes = 0 :: non_neg_integer(),
    watch = none :: none | {term(), pos_integer()},
    %% The handler has had its event, and has not read since.
    told = false :: boolean(),
    %% The poller has had its event, and has not polled since.
    reported = false :: boolean(),
    %% An event may be under way, even though its bytes have been read meanwhile.
    unseen = false :: boolean()
}).

-record(model, {
    loops = [] :: [{term(), #loop{}}],
    pipes = [] :: [{term(), #pipe{}}],
    next = 1 :: pos_integer()
}).

property_test_() ->
    tokamak_test:with_application(
        tokamak_test:cases(180, [{"loops do what their model does", fun loops_follow_their_model/0}])
    ).

loops_follow_their_model() ->
    Before = tokamak_test:resources(),
    Counter = counters:new(1, []),
    Property = proper:forall(proper_statem:commands(?MODULE), fun(Commands) -> holds(Commands, Counter) end),
    %% Sequences have half as many commands as their size on average.
    Options = [{numtests, ?SEQUENCES}, {start_size, 20}, {max_size, 200}, quiet],
    case proper:quickcheck(Property, Options) of
        true -> ?debugFmt("~b commands in ~b sequences", [counters:get(Counter, 1), ?SEQUENCES]);
        false -> erlang:error({counterexample, proper:counterexample()})
    end,
    tokamak_test:given_back(maps:update_with(owners, fun(N) -> N + 1 end, Before)).

%% Each sequence has a process of its own, so that all it made ends with it.
holds(Commands, Counter) ->
    tokamak_test:in_process(fun() ->
        {History, Model, Result} = proper_statem:run_commands(?MODULE, Commands),
        counters:add(Counter, 1, length(History)),
        [ok = tokamak_loop:destroy(Loop) || {Loop, _} <- Model#model.loops],
        Result =:= ok orelse explain(Commands, History, Model, Result)
    end).

explain(Commands, History, Model, Result) ->
    {Done, _} = lists:split(min(length(History), length(Commands)), Commands),
    [?debugFmt("~0p", [Command]) || Command <- Done],
    {_, Returned} = lists:last(History),
    ?debugFmt("~p: ~p~n~p", [Result, Returned, Model]),
    false.

%% Commands

initial_state() ->
    #model{}.

command(#model{loops = [], next = Next}) ->
    new_loop_command(Next);
command(#model{loops = Loops, pipes = Pipes, next = Next} = Model) ->
    Any = proper_types:oneof([Loop || {Loop, _} <- Loops]),
    Wide = [Loop || {Loop, #loop{bound = ?WIDE}} <- Loops],
    proper_types:frequency(
        [{1, new_loop_command(Next)} || length(Loops) < 3] ++
            [{1, {call, ?MODULE, destroy, [Any]}}, {2, {call, ?MODULE, info, [Any]}}] ++
            [{10, {call, ?MODULE, post, [Any, id(), Next]}}] ++
            [{6, settle_command(Model)}] ++
            [{2, {call, ?MODULE, make_pipe, [Next]}} || length(Pipes) < 4] ++
            pipe_commands(Pipes) ++
            watch_commands(Wide, Pipes) ++
            wide_commands(Wide) ++
            [{2, {call, ?MODULE, cancel_timer, [Loop, Timer]}} || {Loop, #loop{far = [Timer | _]}} <- Loops]
    ).

new_loop_command(_Next) ->
    Kind = {proper_types:oneof([supervised, raw]), proper_types:oneof([native, select])},
    {call, ?MODULE, new_loop, [Kind, proper_types:frequency([{1, ?TIGHT}, {4, ?WIDE}])]}.

%% Ids of posts, timers and handlers; some of them are those of pipes, too.
id() ->
    proper_types:range(1, 6).

%% What a pipe is watched for: mostly its own, now and then another one.
id_of(#pipe{number = Number}) ->
    proper_types:oneof([1 + Number rem 6, 100 + Number]).

settle_command(#model{loops = Loops} = Model) ->
    proper_types:oneof([{call, ?MODULE, settle, [Loop, polled(Loop, Model), handled(Loop, Model)]} || {Loop, _} <- Loops]).

pipe_commands(Pipes) ->
    lists:append([
        [
            {4, {call, ?MODULE, write, [Pipe, proper_types:range(1, 5)]}},
            {4, {call, ?MODULE, read, [Pipe, proper_types:oneof([1, 3, 100])]}},
            {1, {call, ?MODULE, close_pipe, [Pipe]}}
        ]
     || {Pipe, _} <- Pipes
    ]).

watch_commands(Loops, Pipes) ->
    lists:append([
        [{3, {call, ?MODULE, watch, [Loop, Pipe, id_of(State)]}}, {1, {call, ?MODULE, unwatch, [Loop, Pipe]}}]
     || Loop <- Loops, {Pipe, State} <- Pipes
    ]).

wide_commands(Loops) ->
    lists:append([
        [
            {3, {call, ?MODULE, start_timer, [Loop, proper_types:oneof([0, 1, 3, ?FAR]), id()]}},
            {2, {call, ?MODULE, register, [Loop, id()]}},
            {1, {call, ?MODULE, unregister, [Loop, id()]}}
        ]
     || Loop <- Loops
    ]).

%% Preconditions

precondition(Model, {call, _, new_loop, _}) ->
    length(Model#model.loops) < 3;
precondition(Model, {call, _, make_pipe, _}) ->
    length(Model#model.pipes) < 4;
precondition(Model, {call, _, settle, [Loop, Polled, Handled]}) ->
    is_loop(Loop, Model) andalso Polled =:= polled(Loop, Model) andalso Handled =:= handled(Loop, Model);
precondition(Model, {call, _, post, [Loop, _Id, Number]}) ->
    is_loop(Loop, Model) andalso Number =:= Model#model.next;
precondition(Model, {call, _, write, [Pipe, _]}) ->
    is_pipe(Pipe, Model);
precondition(Model, {call, _, Function, [Pipe | _]}) when Function =:= read; Function =:= close_pipe ->
    is_pipe(Pipe, Model) andalso is_quiet(Pipe, Model);
precondition(Model, {call, _, watch, [Loop, Pipe, Id]}) ->
    is_wide(Loop, Model) andalso is_pipe(Pipe, Model) andalso is_quiet(Pipe, Model) andalso
        not (lists:member(Id, (loop(Loop, Model))#loop.handled) andalso is_stale(pipe(Pipe, Model)));
precondition(Model, {call, _, unwatch, [Loop, Pipe]}) ->
    is_wide(Loop, Model) andalso is_pipe(Pipe, Model) andalso is_quiet(Pipe, Model);
precondition(Model, {call, _, start_timer, [Loop | _]}) ->
    is_wide(Loop, Model);
precondition(Model, {call, _, cancel_timer, [Loop, Timer]}) ->
    is_loop(Loop, Model) andalso lists:member(Timer, (loop(Loop, Model))#loop.far);
precondition(Model, {call, _, register, [Loop, Id]}) ->
    Stale = [P || {P, #pipe{watch = {L, I}} = State} <- Model#model.pipes, L =:= Loop, I =:= Id, is_stale(State)],
    is_wide(Loop, Model) andalso not is_pending(Loop, Id, Model) andalso Stale =:= [];
precondition(Model, {call, _, unregister, [Loop, Id]}) ->
    is_wide(Loop, Model) andalso not is_pending(Loop, Id, Model);
precondition(Model, {call, _, _, [Loop]}) ->
    is_loop(Loop, Model).

is_loop(Loop, Model) ->
    lists:keymember(Loop, 1, Model#model.loops).

is_wide(Loop, Model) ->
    is_loop(Loop, Model) andalso (loop(Loop, Model))#loop.bound =:= ?WIDE.

is_pipe(Pipe, Model) ->
    lists:keymember(Pipe, 1, Model#model.pipes).

loop(Loop, Model) ->
    {_, State} = lists:keyfind(Loop, 1, Model#model.loops),
    State.

pipe(Pipe, Model) ->
    {_, State} = lists:keyfind(Pipe, 1, Model#model.pipes),
    State.

%% No event for a handler is under way.
is_quiet(Pipe, Model) ->
    State = pipe(Pipe, Model),
    not is_handled(State, Model) orelse State#pipe.told orelse State#pipe.bytes =:= 0.

%% An event may be under way of bytes that were read: a handler may get it, or not.
is_stale(#pipe{bytes = Bytes, unseen = Unseen}) ->
    Unseen andalso Bytes =:= 0.

is_handled(#pipe{watch = none}, _Model) ->
    false;
is_handled(#pipe{watch = {Loop, Id}}, Model) ->
    lists:member(Id, (loop(Loop, Model))#loop.handled).

%% Events are under way to the handler of an id.
is_pending(Loop, Id, Model) ->
    #loop{handled = Handled} = loop(Loop, Model),
    lists:member(Id, Handled) andalso handled(Id, Loop, Model) =/= {Id, [], 0, []}.

%% What a loop owes its poller: posts in order, timers, descriptors that have to be told, and those that may be.
polled(Loop, Model) ->
    #loop{posts = Posts, near = Near, handled = Handled} = loop(Loop, Model),
    IsPolled = fun({Id, _}) -> not lists:member(Id, Handled) end,
    Watched = [{Id, Bytes} || {_, #pipe{watch = {L, Id}, bytes = Bytes}} <- Model#model.pipes, L =:= Loop],
    {
        lists:filter(IsPolled, Posts),
        lists:filter(IsPolled, Near),
        lists:usort([Id || {Id, Bytes} = Pair <- Watched, Bytes > 0, IsPolled(Pair)]),
        lists:usort([Id || {Id, _} = Pair <- Watched, IsPolled(Pair)])
    }.

%% What it owes its handlers: posts in order, how many descriptors to tell of, timers.
handled(Loop, Model) ->
    [handled(Id, Loop, Model) || Id <- (loop(Loop, Model))#loop.handled].

handled(Id, Loop, Model) ->
    #loop{posts = Posts, near = Near} = loop(Loop, Model),
    Untold = [
        P
     || {P, #pipe{watch = {L, I}, bytes = Bytes, told = false}} <- Model#model.pipes,
        L =:= Loop,
        I =:= Id,
        Bytes > 0
    ],
    {Id, [N || {I, N} <- Posts, I =:= Id], length(Untold), [T || {I, T} <- Near, I =:= Id]}.

%% The model

next_state(Model, Result, Call) ->
    Next = next(Model, Result, Call),
    Next#model{pipes = [{Pipe, with_event(State)} || {Pipe, State} <- Next#model.pipes]}.

with_event(#pipe{watch = {_, _}, bytes = Bytes, told = false, reported = false} = Pipe) when Bytes > 0 ->
    Pipe#pipe{unseen = true};
with_event(Pipe) ->
    Pipe.

next(Model, Loop, {call, _, new_loop, [Kind, Bound]}) ->
    Model#model{loops = Model#model.loops ++ [{Loop, #loop{kind = Kind, bound = Bound}}]};
next(Model, _, {call, _, destroy, [Loop]}) ->
    Unwatch = fun
        (#pipe{watch = {L, _}} = Pipe) when L =:= Loop -> watched(none, Pipe);
        (Pipe) -> Pipe
    end,
    Model#model{
        loops = lists:keydelete(Loop, 1, Model#model.loops),
        pipes = [{Pipe, Unwatch(State)} || {Pipe, State} <- Model#model.pipes]
    };
next(Model, _, {call, _, settle, [Loop, _, _]}) ->
    Tell = fun
        (#pipe{watch = {L, _}, bytes = Bytes} = Pipe) when L =:= Loop, Bytes > 0 ->
            IsHandled = is_handled(Pipe, Model),
            Pipe#pipe{told = IsHandled, reported = not IsHandled, unseen = false};
        (#pipe{watch = {L, _}} = Pipe) when L =:= Loop ->
            Pipe#pipe{reported = false};
        (Pipe) ->
            Pipe
    end,
    Told = Model#model{pipes = [{Pipe, Tell(State)} || {Pipe, State} <- Model#model.pipes]},
    with_loop(Loop, fun(State) -> State#loop{posts = [], near = []} end, Told);
next(Model, Pipe, {call, _, make_pipe, [Number]}) ->
    Model#model{pipes = Model#model.pipes ++ [{Pipe, #pipe{number = Number}}], next = Number + 1};
next(Model, _, {call, _, write, [Pipe, Count]}) ->
    with_pipe(Pipe, fun(#pipe{bytes = Bytes} = State) -> State#pipe{bytes = Bytes + Count} end, Model);
next(Model, _, {call, _, read, [Pipe, Max]}) ->
    Read = fun(#pipe{bytes = Bytes} = State) -> State#pipe{bytes = max(0, Bytes - Max), told = false} end,
    with_pipe(Pipe, Read, Model);
next(Model, _, {call, _, close_pipe, [Pipe]}) ->
    Model#model{pipes = lists:keydelete(Pipe, 1, Model#model.pipes)};
next(Model, _, {call, _, watch, [Loop, Pipe, Id]}) ->
    case (pipe(Pipe, Model))#pipe.watch of
        {Other, _} when Other =/= Loop -> Model;
        {Loop, Id} -> Model;
        _ -> with_pipe(Pipe, fun(State) -> watched({Loop, Id}, State) end, Model)
    end;
next(Model, _, {call, _, unwatch, [Loop, Pipe]}) ->
    case (pipe(Pipe, Model))#pipe.watch of
        {Loop, _} -> with_pipe(Pipe, fun(State) -> watched(none, State) end, Model);
        _ -> Model
    end;
next(Model, _, {call, _, post, [Loop, Id, Number]}) ->
    Next = Model#model{next = Number + 1},
    case is_full(loop(Loop, Model)) of
        true -> Next;
        false -> with_loop(Loop, fun(#loop{posts = Posts} = State) -> State#loop{posts = Posts ++ [{Id, Number}]} end, Next)
    end;
next(Model, Timer, {call, _, start_timer, [Loop, ?FAR, _Id]}) ->
    with_loop(Loop, fun(#loop{far = Far} = State) -> State#loop{far = [Timer | Far]} end, Model);
next(Model, Timer, {call, _, start_timer, [Loop, _Milliseconds, Id]}) ->
    with_loop(Loop, fun(#loop{near = Near} = State) -> State#loop{near = [{Id, Timer} | Near]} end, Model);
next(Model, _, {call, _, cancel_timer, [Loop, Timer]}) ->
    with_loop(Loop, fun(#loop{far = Far} = State) -> State#loop{far = lists:delete(Timer, Far)} end, Model);
next(Model, _, {call, _, register, [Loop, Id]}) ->
    case (loop(Loop, Model))#loop.kind of
        {raw, _} ->
            Model;
        {supervised, _} ->
            Handle = fun(#loop{handled = Handled} = State) -> State#loop{handled = lists:usort([Id | Handled])} end,
            pass_on(Loop, Id, fun(_) -> false end, with_loop(Loop, Handle, Model))
    end;
next(Model, _, {call, _, unregister, [Loop, Id]}) ->
    Forget = fun(#loop{handled = Handled} = State) -> State#loop{handled = lists:delete(Id, Handled)} end,
    pass_on(Loop, Id, fun(Pipe) -> Pipe#pipe.told orelse Pipe#pipe.reported end, with_loop(Loop, Forget, Model));
next(Model, _, {call, _, info, [_]}) ->
    Model.

watched(Watch, Pipe) ->
    Pipe#pipe{watch = Watch, told = false, reported = false}.

with_loop(Loop, Change, Model) ->
    Loops = lists:keyreplace(Loop, 1, Model#model.loops, {Loop, Change(loop(Loop, Model))}),
    Model#model{loops = Loops}.

with_pipe(Pipe, Change, Model) ->
    Pipes = lists:keyreplace(Pipe, 1, Model#model.pipes, {Pipe, Change(pipe(Pipe, Model))}),
    Model#model{pipes = Pipes}.

%% A handler is told what an earlier consumer was told and left; a poller gets it by polling.
pass_on(Loop, Id, IsReported, Model) ->
    PassOn = fun
        (#pipe{watch = {L, I}} = Pipe) when L =:= Loop, I =:= Id ->
            Pipe#pipe{told = false, reported = IsReported(Pipe)};
        (Pipe) ->
            Pipe
    end,
    Model#model{pipes = [{Pipe, PassOn(State)} || {Pipe, State} <- Model#model.pipes]}.

is_full(#loop{bound = ?TIGHT, posts = Posts}) -> length(Posts) >= ?TIGHT;
is_full(#loop{}) -> false.

%% Postconditions

postcondition(Model, {call, _, post, [Loop, _, _]}, Result) ->
    case is_full(loop(Loop, Model)) of
        true -> Result =:= {error, overloaded};
        false -> Result =:= ok
    end;
postcondition(Model, {call, _, read, [Pipe, Max]}, Result) ->
    case (pipe(Pipe, Model))#pipe.bytes of
        0 -> Result =:= again;
        Bytes -> Result =:= {ok, min(Max, Bytes)}
    end;
postcondition(_Model, {call, _, write, [_, Count]}, Result) ->
    Result =:= {ok, Count};
postcondition(Model, {call, _, watch, [Loop, Pipe, _]}, Result) ->
    case (pipe(Pipe, Model))#pipe.watch of
        {Other, _} when Other =/= Loop -> Result =:= {error, busy};
        _ -> Result =:= ok
    end;
postcondition(Model, {call, _, unwatch, [Loop, Pipe]}, Result) ->
    case (pipe(Pipe, Model))#pipe.watch of
        {Loop, _} -> Result =:= ok;
        _ -> Result =:= {error, not_watched}
    end;
postcondition(_Model, {call, _, start_timer, _}, Result) ->
    is_integer(Result);
postcondition(_Model, {call, _, cancel_timer, _}, Result) ->
    is_integer(Result) andalso Result =< ?FAR;
postcondition(Model, {call, _, Function, [Loop, _]}, Result) when Function =:= register; Function =:= unregister ->
    case (loop(Loop, Model))#loop.kind of
        {raw, _} -> Result =:= {error, not_supported};
        {supervised, _} -> Result =:= ok
    end;
postcondition(Model, {call, _, info, [Loop]}, {Kind, Handlers, Readers, Timers}) ->
    State = loop(Loop, Model),
    Watched = [P || {P, #pipe{watch = {L, _}}} <- Model#model.pipes, L =:= Loop],
    Far = length(State#loop.far),
    Kind =:= State#loop.kind andalso
        Handlers =:= length(State#loop.handled) andalso
        Readers =:= length(Watched) andalso
        Timers >= Far andalso Timers =< Far + length(State#loop.near);
postcondition(_Model, {call, _, Function, _}, Result) when Function =:= settle; Function =:= destroy; Function =:= close_pipe ->
    Result =:= ok;
postcondition(_Model, _Call, _Result) ->
    true.

%% The calls

new_loop({supervised, Backend}, Bound) ->
    {ok, Loop} = tokamak_loop:new(#{backend => Backend, max_queue => Bound}),
    Loop;
new_loop({raw, Backend}, Bound) ->
    {ok, Loop} = tokamak_loop:open(#{backend => Backend, max_queue => Bound}),
    Loop.

%% Every handler gets closed as its last message.
destroy(Loop) ->
    ok = tokamak_loop:destroy(Loop),
    lists:foreach(fun({{_, Id}, Reference}) -> ok = closed(Loop, Id, Reference) end, handlers_of(Loop)).

handlers_of(Loop) ->
    [Entry || {{L, _}, _} = Entry <- get(), L =:= Loop].

closed(Loop, Id, Reference) ->
    _ = erase({Loop, Id}),
    receive
        {tokamak, Reference, closed} -> nothing(Reference);
        {tokamak, Reference, {event, Id, _, _}} -> closed(Loop, Id, Reference)
    after ?PATIENCE -> {not_closed, Id}
    end.

nothing(Reference) ->
    receive
        {tokamak, Reference, Payload} -> {too_much, Payload}
    after 0 -> ok
    end.

make_pipe(_Number) ->
    {ok, Read, Write} = tokamak_fd:pipe(),
    {Read, Write}.

write({_, Write}, Count) ->
    tokamak_fd:write(Write, binary:copy(<<"x">>, Count)).

read({Read, _}, Max) ->
    case tokamak_fd:read(Read, Max) of
        {ok, Data} -> {ok, byte_size(Data)};
        Other -> Other
    end.

close_pipe({Read, Write}) ->
    ok = tokamak_fd:close(Read),
    tokamak_fd:close(Write).

watch(Loop, {Read, _}, Id) ->
    tokamak_loop:add_reader(Loop, Read, Id).

unwatch(Loop, {Read, _}) ->
    tokamak_loop:remove_reader(Loop, Read).

post(Loop, Id, Number) ->
    tokamak_loop:post(Loop, Id, user, Number).

start_timer(Loop, Milliseconds, Id) ->
    tokamak_loop:start_timer(Loop, Milliseconds, Id).

cancel_timer(Loop, Timer) ->
    tokamak_loop:cancel_timer(Loop, Timer).

register(Loop, Id) ->
    Before = get({Loop, Id}),
    case tokamak_loop:register(Loop, Id, self()) of
        Reference when is_reference(Reference) ->
            _ = put({Loop, Id}, Reference),
            replaced(Before);
        Error ->
            Error
    end.

replaced(undefined) ->
    ok;
replaced(Reference) ->
    receive
        {tokamak, Reference, Payload} ->
            closed = Payload,
            nothing(Reference)
    after ?PATIENCE -> not_closed
    end.

unregister(Loop, Id) ->
    Result = tokamak_loop:unregister(Loop, Id),
    case erase({Loop, Id}) of
        undefined -> Result;
        Reference when Result =:= ok -> nothing(Reference)
    end.

info(Loop) ->
    #{kind := Kind, backend := Backend, handlers := Handlers, readers := Readers, timers := Timers} =
        tokamak_loop:info(Loop),
    {{Kind, Backend}, Handlers, Readers, Timers}.

%% Takes what the poller and the handlers are owed.
settle(Loop, Polled, Handled) ->
    Deadline = erlang:monotonic_time(millisecond) + ?PATIENCE,
    case poll(Loop, Polled, [], Deadline) of
        ok -> settle_handled(Loop, Handled);
        Wrong -> Wrong
    end.

%% In two steps: the compiler evaluates what is appended to a comprehension before the comprehension.
settle_handled(Loop, Handled) ->
    case first_wrong([receive_handled(Loop, Owed) || Owed <- Handled]) of
        ok -> nothing_handled(Loop);
        Wrong -> Wrong
    end.

first_wrong(Results) ->
    case [Result || Result <- Results, Result =/= ok] of
        [] -> ok;
        [Wrong | _] -> Wrong
    end.

poll(Loop, {Posts, Timers, Ready, MayBeReady} = Polled, Seen, Deadline) ->
    Timeout =
        case is_complete(Polled, Seen) of
            true -> 0;
            false -> 10
        end,
    Events = Seen ++ tokamak_loop:poll(Loop, Timeout),
    IsLate = erlang:monotonic_time(millisecond) > Deadline,
    Told = [Id || {Id, read, undefined} <- Events],
    Checks = [
        {posts, Posts, [{Id, N} || {Id, user, N} <- Events]},
        {timers, lists:sort(Timers), lists:sort([{Id, T} || {Id, timer, T} <- Events])},
        {untold, [], Ready -- Told},
        {not_watched, [], lists:usort(Told) -- MayBeReady},
        {strange, [], [E || {_, Type, _} = E <- Events, not lists:member(Type, [user, timer, read])]}
    ],
    case is_complete(Polled, Events) of
        true -> first_wrong([compare(Check) || Check <- Checks]);
        false when IsLate -> {late, [compare(Check) || Check <- Checks]};
        false -> poll(Loop, Polled, Events, Deadline)
    end.

is_complete({Posts, Timers, Ready, _}, Events) ->
    length([x || {_, user, _} <- Events]) >= length(Posts) andalso
        length([x || {_, timer, _} <- Events]) >= length(Timers) andalso
        Ready -- [Id || {Id, read, _} <- Events] =:= [].

compare({_, Same, Same}) -> ok;
compare(Different) -> Different.

receive_handled(Loop, {Id, Posts, Untold, Timers}) ->
    Reference = get({Loop, Id}),
    Events = receive_events(Reference, Id, length(Posts) + Untold + length(Timers)),
    first_wrong([
        compare(Check)
     || Check <- [
            {handled_posts, Posts, [N || {user, N} <- Events]},
            {handled_timers, lists:sort(Timers), lists:sort([T || {timer, T} <- Events])},
            {handled_reads, Untold, length([x || {read, undefined} <- Events])}
        ]
    ]).

receive_events(_Reference, _Id, 0) ->
    [];
receive_events(Reference, Id, Count) ->
    receive
        {tokamak, Reference, {event, Id, Type, Data}} -> [{Type, Data} | receive_events(Reference, Id, Count - 1)];
        {tokamak, Reference, Other} -> [Other]
    after ?PATIENCE -> []
    end.

%% Nothing more comes to the handlers of a loop.
nothing_handled(Loop) ->
    References = maps:from_list([{Reference, Id} || {{_, Id}, Reference} <- handlers_of(Loop)]),
    receive
        {tokamak, Reference, Payload} when is_map_key(Reference, References) -> {too_much, Payload}
    after ?A_WHILE * min(1, map_size(References)) -> ok
    end.
