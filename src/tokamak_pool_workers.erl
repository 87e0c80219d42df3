%% SPDX-License-Identifier: Apache-2.0
%% @doc The worker processes of one run whose handler is an Erlang function, and their manager.
%%
%% Workers are started when the native side calls them: it sends the manager their numbers, each once the one before
%% has looked for work. A worker takes an item natively, runs it, and gives back what became of it when it takes the
%% next one. A worker that dies is replaced; what it had in hand fails with the reason. When the run ends the manager
%% is told and takes its workers with it; should the manager die first, the run fails.
%% @private
-module(tokamak_pool_workers).
-behaviour(gen_server).

-export([start/4, start_link/1, serve/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-record(state, {
    handler :: function(),
    key :: [function()],
    ref :: reference(),
    cut :: pos_integer() | infinity,
    owner :: reference(),
    run :: reference() | undefined,
    %% Called before the run was known.
    called = [] :: [pos_integer()],
    workers = #{} :: #{pid() => pos_integer()}
}).

%% @doc Starts a manager for a run of the calling process; messages of the run to it carry `Ref'.
%% No more than `Cut' children are handed over in one native call.
-spec start(function(), [function()], reference(), pos_integer() | infinity) -> {ok, pid()} | {error, shutdown}.
start(Handler, Key, Ref, Cut) ->
    tokamak_pool_sup:start_child(?MODULE, {Handler, Key, Ref, Cut, self()}).

%% @private Does not wait for it: nothing in `init' can fail, and short runs wait for every step here.
-spec start_link(tuple()) -> {ok, pid()}.
start_link(Argument) ->
    {ok, proc_lib:spawn_link(?MODULE, init, [Argument])}.

%% @doc Has the workers of a manager serve a run.
-spec serve(pid(), reference()) -> ok.
serve(Manager, Run) ->
    gen_server:cast(Manager, {serve, Run}).

%% @private
-spec init(tuple()) -> no_return().
init({Handler, Key, Ref, Cut, Owner}) ->
    _ = process_flag(trap_exit, true),
    Monitor = monitor(process, Owner),
    gen_server:enter_loop(?MODULE, [], #state{handler = Handler, key = Key, ref = Ref, cut = Cut, owner = Monitor}).

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, {error, unknown}, #state{}}.
handle_call(_Request, _From, State) ->
    {reply, {error, unknown}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({serve, Run}, #state{run = undefined, called = Called} = State) ->
    {noreply, lists:foldl(fun start_worker/2, State#state{run = Run, called = []}, Called)};
handle_cast(_Request, State) ->
    {noreply, State}.

start_worker(Number, #state{workers = Workers} = State) ->
    #state{run = Run, ref = Ref, handler = Handler, key = Key, cut = Cut} = State,
    Pid = spawn_link(fun() -> work({Run, Ref, Number, Cut}, Handler, Key, none) end),
    State#state{workers = Workers#{Pid => Number}}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
handle_info({tokamak, Ref, {start, Number}}, #state{ref = Ref, run = undefined, called = Called} = State) ->
    {noreply, State#state{called = [Number | Called]}};
handle_info({tokamak, Ref, {start, Number}}, #state{ref = Ref} = State) ->
    {noreply, start_worker(Number, State)};
handle_info({tokamak, Ref, over}, #state{ref = Ref} = State) ->
    {stop, normal, State};
handle_info({'EXIT', Pid, Reason}, #state{workers = Workers} = State) when is_map_key(Pid, Workers) ->
    {Number, Rest} = maps:take(Pid, Workers),
    {noreply, ended(Reason, Number, State#state{workers = Rest})};
handle_info({'DOWN', Owner, process, _Pid, _Reason}, #state{owner = Owner, run = undefined} = State) ->
    {stop, normal, State};
handle_info(_Message, State) ->
    {noreply, State}.

%% A worker that found the run over ends by itself. The run's own reference: any other reason may be a handler's.
ended({over, Ref}, _Number, #state{ref = Ref} = State) ->
    State;
ended(Reason, Number, #state{run = Run} = State) ->
    _ = tokamak_nif:op_pool_lost(Run, Number, {crash, {exit, Reason, []}}),
    start_worker(Number, State).

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{workers = Workers}) ->
    lists:foreach(fun(Pid) -> exit(Pid, kill) end, maps:keys(Workers)).

%%% A worker

work({Run, Ref, Number, _Cut} = Place, Handler, Key, End) ->
    case tokamak_nif:op_pool_step(Run, Number, End) of
        {item, Item} ->
            work(Place, Handler, Key, run(Place, Handler, Key, Item));
        waiting ->
            receive
                {tokamak, Ref, ready} -> work(Place, Handler, Key, none)
            end;
        over ->
            exit({over, Ref})
    end.

run(Place, Handler, Key, Item) ->
    try Handler(Item) of
        {ok, Result, Children} = Return ->
            case is_list(Children) andalso proper_length(Children) of
                Count when is_integer(Count) -> discovered(Place, Key, Result, Children, Count);
                false -> {error, {bad_return, Return}}
            end;
        {error, _} = Error ->
            Error;
        Return ->
            {error, {bad_return, Return}}
    catch
        Class:Reason:Stack -> {error, {crash, {Class, Reason, Stack}}}
    end.

discovered({_Run, _Ref, _Number, Cut}, [], Result, Children, Count) when Count =< Cut ->
    {ok, {Result, Children}};
discovered({_Run, _Ref, _Number, Cut}, [Key], Result, Children, Count) when Count =< Cut ->
    with_keys(Key, fun(Keyed) -> {ok, {Result, Keyed}} end, Children);
discovered({Run, _Ref, Number, Cut} = Place, Key, Result, Children, Count) ->
    {Some, Rest} = lists:split(Cut, Children),
    Discover = fun(Items) ->
        ok = tokamak_nif:op_pool_discover(Run, Number, Items),
        discovered(Place, Key, Result, Rest, Count - Cut)
    end,
    case Key of
        [] -> Discover(Some);
        [Fun] -> with_keys(Fun, Discover, Some)
    end.

%% A key function that crashes is the error of the item that discovered.
with_keys(Key, Continue, Items) ->
    try [{Key(Item), Item} || Item <- Items] of
        Keyed -> Continue(Keyed)
    catch
        Class:Reason:Stack -> {error, {crash, {Class, Reason, Stack}}}
    end.

proper_length(List) ->
    try
        length(List)
    catch
        error:badarg -> false
    end.
