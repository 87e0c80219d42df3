%% SPDX-License-Identifier: Apache-2.0
%% @doc A run that several nodes share: its coordinator, on the node of its owner.
%%
%% Each key has one home node, by hash. There an agent ({@link tokamak_pool_agent}) runs the items natively and
%% removes duplicates; children that live elsewhere come to the coordinator with the results, which counts
%% them and sends them on. An item is outstanding from before it is sent to its agent until the agent has
%% settled it: until it, and what it led to at home, was run, and all that it led to elsewhere was counted. So
%% the run is over when it is closed and nothing is outstanding.
%%
%% The coordinator never waits for a node: what it sends to another goes through a courier
%% ({@link tokamak_pool_courier}).
%%
%% A coordinator that is killed tells nobody: a witness, linked to it, then tells the owner.
%%
%% `docs/scale.md' says how that behaves.
%% @private
-module(tokamak_pool_spread).
-behaviour(gen_server).

-export([create_table/0, start/4, start_link/1, find/1]).
-export([ack/2, add/2, close/1, cancel/1]).
-export([home/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-define(TABLE, ?MODULE).

-record(state, {
    ref :: reference(),
    owner :: pid(),
    monitor :: reference(),
    witness :: pid(),
    progress :: [term()],
    %% By home: the agent here, and the couriers of agents elsewhere.
    agents :: tuple(),
    nodes :: #{pid() => node()},
    %% The homes of results that are with the owner, the first to be acknowledged first.
    unacknowledged = queue:new() :: queue:queue(pos_integer()),
    stats = #{} :: #{pos_integer() => map()},
    outstanding = 0 :: non_neg_integer(),
    open = true :: boolean()
}).

%% @doc Makes the table of runs; its owner is the supervisor.
-spec create_table() -> ok.
create_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {read_concurrency, true}]),
    ok.

%% @doc Starts a run of the calling process, whose messages carry `Ref'.
-spec start(reference(), tokamak_pool:handler(), map(), [node()]) -> ok | {error, shutdown}.
start(Ref, Handler, Options, Nodes) ->
    Witness = start_witness(Ref),
    case tokamak_pool_sup:start_child(?MODULE, {Ref, self(), Witness, Handler, Options, Nodes}) of
        {ok, _Pid} ->
            ok;
        {error, _} = Error ->
            true = exit(Witness, kill),
            Error
    end.

%% @doc The coordinator of a run that goes on, and its owner.
-spec find(reference()) -> {ok, pid(), pid()} | error.
find(Ref) ->
    case lookup(Ref) of
        [{Ref, Coordinator, Owner, _Witness}] -> {ok, Coordinator, Owner};
        [] -> error
    end.

%% The table ends with the application.
lookup(Ref) ->
    try
        ets:lookup(?TABLE, Ref)
    catch
        error:badarg -> []
    end.

forget(Ref) ->
    try
        ets:delete(?TABLE, Ref)
    catch
        error:badarg -> true
    end.

-spec ack(pid(), pos_integer()) -> ok.
ack(Coordinator, Count) ->
    gen_server:cast(Coordinator, {ack, Count}).

%% @doc Adds items, or `{Key, Item}' where there is a key function.
-spec add(pid(), {Keyed :: boolean(), [term()]}) -> ok | {error, closed}.
add(Coordinator, Items) ->
    call(Coordinator, {add, Items}, {error, closed}).

-spec close(pid()) -> ok.
close(Coordinator) ->
    gen_server:cast(Coordinator, close).

%% @doc Ends a run: once this has returned, no message of it comes. Its owner's.
-spec cancel(reference()) -> ok.
cancel(Ref) ->
    case lookup(Ref) of
        [{Ref, Coordinator, _Owner, Witness}] ->
            %% Where no coordinator answers, the witness may be about to tell of that. It does not forget the run then.
            _ = call(Coordinator, cancel, gone) =:= gone andalso end_witness(Witness) andalso forget(Ref),
            ok;
        [] ->
            ok
    end.

call(Coordinator, Request, Otherwise) ->
    try
        gen_server:call(Coordinator, Request, infinity)
    catch
        exit:_ -> Otherwise
    end.

%% @doc The home of a key, among so many: from 1.
-spec home(term(), pos_integer()) -> pos_integer().
home(Key, Count) ->
    erlang:phash2(Key, Count) + 1.

%% @private
-spec start_link(tuple()) -> gen_server:start_ret().
start_link(Argument) ->
    gen_server:start_link(?MODULE, Argument, []).

%% @private
-spec init(tuple()) -> {ok, #state{}}.
init({Ref, Owner, Witness, Handler, Options, Nodes}) ->
    %% Told of the end of the application, it tells its owner.
    _ = process_flag(trap_exit, true),
    true = link(Witness),
    Monitor = monitor(process, Owner),
    true = ets:insert(?TABLE, {Ref, self(), Owner, Witness}),
    Agents = [start_agent(Place, Handler, Options, length(Nodes)) || Place <- lists:enumerate(Nodes)],
    start_timer(maps:get(timeout, Options, infinity)),
    {ok, #state{
        ref = Ref,
        owner = Owner,
        monitor = Monitor,
        witness = Witness,
        progress = [Key || #{progress := Key} <- [Options]],
        agents = list_to_tuple(Agents),
        nodes = maps:from_list(lists:zip(Agents, Nodes))
    }}.

start_agent({Home, Node}, Handler, Options, Count) ->
    Args = [self(), Handler, Options, Home, Count],
    case node() of
        Node -> spawn_link(tokamak_pool_agent, serve, Args);
        _ -> tokamak_pool_courier:start_link(Node, tokamak_pool_agent, Args)
    end.

start_timer(infinity) ->
    ok;
start_timer(Timeout) ->
    _ = erlang:send_after(Timeout, self(), timeout),
    ok.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {stop, normal, ok, #state{}}.
handle_call({add, _Items}, _From, #state{open = false} = State) ->
    {reply, {error, closed}, State};
handle_call({add, {Keyed, Items}}, _From, State) ->
    Homes = by_home(Items, Keyed, tuple_size(State#state.agents)),
    {reply, ok, dispatch(Homes, State)};
handle_call(cancel, _From, State) ->
    {stop, normal, ok, State};
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
handle_cast({ack, Count}, State) ->
    {noreply, acknowledge(Count, State)};
handle_cast(close, State) ->
    continue(State#state{open = false});
handle_cast(_Request, State) ->
    {noreply, State}.

acknowledge(0, State) ->
    State;
acknowledge(Count, State) ->
    case queue:out(State#state.unacknowledged) of
        {{value, Home}, Rest} ->
            element(Home, State#state.agents) ! ack,
            acknowledge(Count - 1, State#state{unacknowledged = Rest});
        {empty, _} ->
            State
    end.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
handle_info({results, Home, Results, Elsewhere, Stats}, State) ->
    ok = tell({results, Results}, State),
    Unacknowledged = queue:in(Home, State#state.unacknowledged),
    Noted = note(Home, Stats, State#state{unacknowledged = Unacknowledged}),
    {noreply, dispatch(Elsewhere, Noted)};
handle_info({settled, Home, Count, Stats}, #state{outstanding = Outstanding} = State) ->
    continue(note(Home, Stats, State#state{outstanding = Outstanding - Count}));
handle_info({failed, Reason}, State) ->
    finish({error, Reason}, State);
handle_info(timeout, State) ->
    finish({error, timeout}, State);
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State};
%% It ends first with the owner only, or when the run is cancelled.
handle_info({'EXIT', Witness, _Reason}, #state{witness = Witness} = State) ->
    {stop, normal, State};
handle_info({'EXIT', Agent, Reason}, #state{nodes = Nodes} = State) when is_map_key(Agent, Nodes) ->
    finish({error, lost(maps:get(Agent, Nodes), Reason)}, State);
handle_info(_Message, State) ->
    {noreply, State}.

%% The run of an agent here ends with the application.
lost(Node, shutdown) when Node =:= node() -> shutdown;
lost(Node, {undef, _} = Reason) -> {no_tokamak, Node, Reason};
lost(Node, _Reason) -> {nodedown, Node}.

%% @private Agents watch this process, and end with it; couriers may be waiting for their node. What ends it otherwise
%% is the witness's to tell.
-spec terminate(term(), #state{}) -> true.
terminate(normal, #state{ref = Ref} = State) ->
    ok = end_couriers(State),
    forget(Ref);
terminate(shutdown, #state{ref = Ref} = State) ->
    ok = tell({error, shutdown}, State),
    forget(Ref);
terminate(_Reason, _State) ->
    true.

%% The links do not: it ends normally.
end_couriers(#state{nodes = Nodes}) ->
    lists:foreach(fun(Pid) -> exit(Pid, shutdown) end, maps:keys(Nodes)).

%%% The witness of a run

%% It sees all ends of its coordinator, which is linked to it later, and so has to trap exits before.
start_witness(Ref) ->
    Owner = self(),
    Ready = make_ref(),
    Witness = spawn(fun() ->
        _ = process_flag(trap_exit, true),
        Owner ! Ready,
        witness(Ref, Owner, monitor(process, Owner))
    end),
    receive
        Ready -> Witness
    end.

witness(Ref, Owner, Monitor) ->
    receive
        {'EXIT', _Coordinator, Reason} when Reason =:= normal; Reason =:= shutdown ->
            true;
        {'EXIT', _Coordinator, _Reason} ->
            Owner ! {tokamak, Ref, {error, <<"the coordinator of the run died">>}},
            %% Last: whoever does not find the run has its end.
            forget(Ref);
        {'DOWN', Monitor, process, Owner, _} ->
            %% A coordinator that is killed now forgets nothing.
            forget(Ref)
    end.

%% Once this has returned, what it told is in the mailbox.
end_witness(Witness) ->
    Monitor = monitor(process, Witness),
    true = exit(Witness, kill),
    receive
        {'DOWN', Monitor, process, Witness, _} -> true
    end.

%%% Items on their way

by_home(Items, Keyed, Count) ->
    lists:foldl(
        fun(Item, Homes) ->
            Home = home(key(Keyed, Item), Count),
            Homes#{Home => [Item | maps:get(Home, Homes, [])]}
        end,
        #{},
        Items
    ).

key(true, {Key, _Item}) -> Key;
key(false, Item) -> Item.

%% Counted before they are sent.
dispatch(Homes, State) ->
    maps:fold(
        fun(Home, Items, #state{outstanding = Outstanding, agents = Agents} = Before) ->
            Counted = Before#state{outstanding = Outstanding + length(Items)},
            element(Home, Agents) ! {items, Items},
            Counted
        end,
        State,
        Homes
    ).

note(Home, Stats, #state{stats = All} = State) ->
    Noted = State#state{stats = All#{Home => Stats}},
    #{dispatched := Dispatched, succeeded := Succeeded, failed := Failed} = totals(Noted),
    Done = Succeeded + Failed,
    %% Done is what has ended, see handle_info.
    [tokamak_progress:report(Key, Done, max(Dispatched, Done + 1)) || Key <- State#state.progress],
    Noted.

totals(#state{stats = All}) ->
    Zero = #{dispatched => 0, succeeded => 0, failed => 0, duplicates => 0, refused => 0},
    Add = fun(Stats, Sum) -> maps:merge_with(fun(_, A, B) -> A + B end, Stats, Sum) end,
    lists:foldl(Add, Zero, maps:values(All)).

continue(#state{open = false, outstanding = 0, progress = Progress} = State) ->
    #{dispatched := Dispatched} = Stats = totals(State),
    [tokamak_progress:report(Key, Dispatched, Dispatched) || Key <- Progress],
    finish({finished, Stats}, State);
continue(State) ->
    {noreply, State}.

finish(End, State) ->
    ok = tell(End, State),
    {stop, normal, State}.

tell(Payload, #state{owner = Owner, ref = Ref}) ->
    Owner ! {tokamak, Ref, Payload},
    ok.
